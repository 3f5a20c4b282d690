"""What a `System` does with pictures that it is given: the manipulations of section 3 of the paper, as methods."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from unclip.generate.picture import Picture
from unclip.generate.progress import Callback
from unclip.generate.settings import Knobs, PathKnobs
from unclip.generate.sources import PictureLike

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from unclip.generate.inversion import Inversion
    from unclip.generate.probes import Match, TypographicProbe


class Manipulations:
    """The methods of `System` that take pictures.

    All of them open a picture from memory, a path or bytes, and raise `PictureError` for what is none; they take the
    `Knobs` of sampling, whose defaults are the model's. Each picture records a seed of its own. `size` is the side in
    pixels, what the first upsampler makes unless given. What a model cannot do for lack of a part is a `ValueError` that names the
    part.
    """

    @property
    def _system(self) -> Any:
        return self

    def invert(
        self, picture: PictureLike, *, callback: Callback | None = None, **knobs: Unpack[Knobs]
    ) -> "Inversion":
        """(z_i, x_T) of a picture: its CLIP embedding, and the noise from which the decoder's DDIM draws it again.

        Of pictures that are not square the middle is taken.
        """
        from unclip.generate import inversion

        settings = inversion.inversion_settings(self._system.defaults, knobs)
        return inversion.invert(self._system, picture, settings=settings, callback=callback)

    def reconstruct(
        self,
        picture: PictureLike,
        *,
        seed: int | None = None,
        size: int | None = None,
        callback: Callback | None = None,
        **knobs: Unpack[Knobs],
    ) -> Picture:
        """The picture drawn again from its own (z_i, x_T). More `steps` bring it nearer; the recipe holds the `psnr`.

        The seed is the upsamplers'.
        """
        from unclip.generate import inversion, reconstruct

        settings = inversion.inversion_settings(self._system.defaults, knobs)
        return reconstruct.reconstruct(
            self._system, picture, settings=settings, seed=seed, size=size, callback=callback
        )

    def vary(
        self,
        picture: PictureLike,
        *,
        n: int = 4,
        eta: float | None = None,
        seed: int | None = None,
        size: int | None = None,
        callback: Callback | None = None,
        batch_size: int | None = None,
        **knobs: Unpack[Knobs],
    ) -> list[Picture]:
        """`n` pictures of the same meaning and style, with other details.

        They are drawn from z_i alone; with an `eta`, from (z_i, x_T) by DDIM with so much noise: 0 gives the picture
        back, 1 keeps what x_T says of its layout the least.
        """
        from unclip.generate import inversion, variations

        settings = inversion.drawing_settings(self._system.defaults, knobs, inverted=eta is not None)
        made = variations.vary(
            self._system,
            picture,
            settings=settings,
            n=n,
            eta=eta,
            seed=seed,
            size=size,
            callback=callback,
            batch_size=batch_size,
        )
        return list(made)

    def interpolate(
        self,
        a: PictureLike,
        b: PictureLike,
        *,
        steps: int = 7,
        noise: str = "inverted",
        seed: int | None = None,
        size: int | None = None,
        decoder_steps: int | None = None,
        callback: Callback | None = None,
        batch_size: int | None = None,
        **knobs: Unpack[PathKnobs],
    ) -> list[Picture]:
        """`steps` pictures from `a` to `b`, along the arc between their embeddings.

        With `noise` "inverted" x_T goes along its own arc, and the ends are the reconstructions; "fixed" keeps the
        seed's x_T, and only the meaning changes. `decoder_steps` are the sampler's.
        """
        from unclip.generate import interpolate, inversion

        made = interpolate.interpolate(
            self._system,
            a,
            b,
            settings=inversion.drawing_settings(
                self._system.defaults, {**knobs, "steps": decoder_steps}, inverted=noise == "inverted"
            ),
            thetas=interpolate.evenly(steps),
            noise=noise,
            seed=seed,
            size=size,
            callback=callback,
            batch_size=batch_size,
        )
        return list(made)

    def text_diff(
        self,
        picture: PictureLike,
        *,
        target: str,
        source: str = "",
        steps: int = 5,
        maximum: float = 0.5,
        seed: int | None = None,
        size: int | None = None,
        decoder_steps: int | None = None,
        callback: Callback | None = None,
        batch_size: int | None = None,
        **knobs: Unpack[PathKnobs],
    ) -> list[Picture]:
        """`steps` pictures on the way from what the caption `source` says to what `target` says.

        z_i turns towards z_d = norm(z_t - z_t0), from the reconstruction to the part `maximum` of the arc (the paper's
        lie between 0.25 and 0.5); x_T stays that of the picture. `source` may be empty, or like "a photo".
        """
        from unclip.generate import interpolate, inversion, text_diff

        made = text_diff.text_diff(
            self._system,
            picture,
            target=target,
            source=source,
            settings=inversion.inversion_settings(self._system.defaults, {**knobs, "steps": decoder_steps}),
            thetas=interpolate.evenly(steps, maximum),
            seed=seed,
            size=size,
            callback=callback,
            batch_size=batch_size,
        )
        return list(made)

    def edit(
        self,
        picture: PictureLike,
        mask: PictureLike | tuple[int, int, int, int] | None,
        prompt: str,
        *,
        n: int = 1,
        seed: int | None = None,
        negative: str | None = None,
        callback: Callback | None = None,
        **knobs: Unpack[Knobs],
    ) -> list[Picture]:
        """`n` pictures of the given one's size, with a part drawn anew so that the whole shows `prompt`.

        `mask` is a picture of the same size whose transparent pixels, or else whose white ones, are drawn anew; or a box
        (left, top, right, bottom); or None for the picture's own transparent pixels. All others are kept to the bit.
        """
        from unclip.generate import inpaint

        made = inpaint.edit(
            self._system,
            picture,
            mask,
            prompt,
            settings=self._system.defaults.with_given(**knobs),
            n=n,
            seed=seed,
            negative=negative,
            callback=callback,
        )
        return list(made)

    def outpaint(
        self,
        picture: PictureLike,
        prompt: str | None = None,
        *,
        left: int = 0,
        top: int = 0,
        right: int = 0,
        bottom: int = 0,
        seed: int | None = None,
        negative: str | None = None,
        callback: Callback | None = None,
        **knobs: Unpack[Knobs],
    ) -> Picture:
        """The picture continued beyond its sides, by so many pixels each; those given are kept to the bit.

        `prompt` says what the whole shows; without one, it goes on in the meaning and style of the picture.
        """
        from unclip.generate import outpaint

        return outpaint.outpaint(
            self._system,
            picture,
            prompt,
            left=left,
            top=top,
            right=right,
            bottom=bottom,
            settings=self._system.defaults.with_given(**knobs),
            seed=seed,
            negative=negative,
            callback=callback,
        )

    def redraw(
        self,
        picture: PictureLike,
        prompt: str,
        *,
        strength: float = 0.7,
        n: int = 1,
        seed: int | None = None,
        size: int | None = None,
        negative: str | None = None,
        callback: Callback | None = None,
        **knobs: Unpack[Knobs],
    ) -> list[Picture]:
        """`n` pictures of the prompt that start from a picture with noise added, not from noise alone.

        A `strength` near 0 keeps the picture, 1 keeps hardly more than its colours.
        """
        from unclip.generate import redraw

        made = redraw.redraw(
            self._system,
            picture,
            prompt,
            settings=self._system.defaults.with_given(**knobs),
            strength=strength,
            n=n,
            seed=seed,
            size=size,
            negative=negative,
            callback=callback,
        )
        return list(made)

    def upscale(
        self,
        picture: PictureLike,
        *,
        size: int | None = None,
        upsampler_steps: int | None = None,
        seed: int | None = None,
        callback: Callback | None = None,
    ) -> Picture:
        """A picture of any shape enlarged by the upsamplers, to a longer side of `size`, or by one of them alone.

        The first to run is the one that was made for pictures of such a size; `upsampler_steps` are those of each.
        Large pictures are computed in tiles that overlap as far as the net sees, so that memory stays bounded.
        """
        from unclip.generate import upscale

        return upscale.upscale(
            self._system,
            picture,
            settings=self._system.defaults.with_given(
                upsampler_steps=upsampler_steps, second_upsampler_steps=upsampler_steps
            ),
            size=size,
            seed=seed,
            callback=callback,
        )

    def pca_reconstructions(
        self,
        picture: PictureLike,
        *,
        dimensions: Sequence[int],
        basis: Sequence[PictureLike] | None = None,
        seed: int | None = None,
        size: int | None = None,
        callback: Callback | None = None,
        batch_size: int | None = None,
        **knobs: Unpack[Knobs],
    ) -> list[Picture]:
        """The picture as each number of the first principal components of z_i has it, from one and the same noise.

        The components are those of the pictures in `basis`, one less than there are, or of the autoregressive prior.
        """
        from unclip.generate import pca

        made = pca.pca_reconstructions(
            self._system,
            picture,
            dimensions=dimensions,
            basis=basis,
            settings=self._system.defaults.with_given(**knobs),
            seed=seed,
            size=size,
            callback=callback,
            batch_size=batch_size,
        )
        return list(made)

    def nearest_captions(
        self, picture: "PictureLike | Float[Tensor, ' d']", captions: Sequence[str], *, k: int | None = None
    ) -> "list[Match]":
        """Which of the captions CLIP finds nearest to a picture or to an embedding, the best first; all of them, or k."""
        from unclip.generate import probes

        return probes.nearest_captions(self._system, picture, captions, k=k)

    def typographic_probe(
        self,
        picture: PictureLike,
        word: str,
        captions: Sequence[str],
        *,
        n: int = 4,
        seed: int | None = None,
        size: int | None = None,
        callback: Callback | None = None,
        **knobs: Unpack[Knobs],
    ) -> "TypographicProbe":
        """Whether a word written on a picture deceives CLIP, and what `n` variations make of it.

        The paper's found an apple with "iPod" on it to be an iPod, and still drew apples.
        """
        from unclip.generate import probes

        return probes.typographic_probe(
            self._system,
            picture,
            word,
            captions,
            settings=self._system.defaults.with_given(**knobs),
            n=n,
            seed=seed,
            size=size,
            callback=callback,
        )
