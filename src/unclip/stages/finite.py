"""Check that networks answer with finite numbers. Clamping hides an infinite one, so it is looked for before that."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Watch:
    """Remembers whether all answers of networks were finite; asking is left to the end, as it waits for the device."""

    def __init__(self):
        self._finite: Tensor | None = None

    def over(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The network, watched."""

        def watched(*given: Any) -> Tensor:
            answer = network(*given)
            self.see(answer)
            return answer

        return watched

    def see(self, answer: Tensor) -> None:
        """Look at an answer."""
        finite = torch.isfinite(answer).all()
        self._finite = finite if self._finite is None else self._finite & finite

    @property
    def finite(self) -> bool:
        """Whether all answers so far were finite."""
        return self._finite is None or bool(self._finite)
