"""One picture to be decoded from an image embedding. Imports no torch, as operations do not."""

from typing import TYPE_CHECKING, NamedTuple

from unclip.generate.request import Request

if TYPE_CHECKING:
    from torch import Tensor


class Drawing(NamedTuple):
    """The request that makes the picture alone, its z_i (d), and its starting noise.

    `x_T` (3 s s) is in DDPM's units; None draws it from the request's seed.
    """

    request: Request
    z_i: "Tensor"
    x_T: "Tensor | None" = None
