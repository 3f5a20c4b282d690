"""Pictures of many prompts, each a file with its provenance, as `unclip generate` and `unclip evaluate` draw them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unclip.batch.work import Encoder, Part
from unclip.errors import RequestError
from unclip.generate.operations import Generate
from unclip.images import PictureError, read_provenance, write_atomically


class DrawWork:
    """The work of drawing requests, each of one picture with its seed, to a file each. A unit is `batch` of them.

    Finished files are written by the process that began the work; machines that draw need not see its disk.
    Pictures are done where their file records the same request.
    """

    def __init__(
        self,
        requests: Sequence[Generate],
        files: Sequence[Path],
        *,
        model: str,
        batch: int = 16,
        device: str | None = None,
        dtype: str = "float32",
    ):
        if len(requests) != len(files) or len(set(files)) != len(files):
            raise ValueError(f"{len(requests)} pictures need as many files, each with a name of its own")
        self.requests, self.files, self.batch = list(requests), list(files), batch
        self.model, self.device, self.dtype = model, device, dtype

    @property
    def units(self) -> Sequence[str]:
        """Names by the first file."""
        return [str(self.files[start]) for start in range(0, len(self.files), self.batch)]

    def _of(self, unit: int) -> range:
        return range(unit * self.batch, min((unit + 1) * self.batch, len(self.files)))

    def parts(self, unit: int) -> int:
        """1."""
        return 1

    def is_done(self, unit: int) -> bool:
        """Whether all files of the unit are whole pictures of their requests."""
        return all(is_picture_of(self.files[number], self.requests[number]) for number in self._of(unit))

    def load(self, unit: int) -> Iterator[Part]:
        """The unit's requests."""
        yield Part(unit, 0, [self.requests[number] for number in self._of(unit)])

    def encoder(self) -> Encoder:
        """The model."""
        return _DrawEncoder(self)

    def finish(self, unit: int, parts: Sequence[Any]) -> None:
        """Write the unit's files."""
        for number, data in zip(self._of(unit), parts[0]):
            write_atomically(self.files[number], data, force=True)


class _DrawEncoder:
    def __init__(self, work: DrawWork):
        from unclip.generate.model import Model

        self._model = Model.load(work.model, device=work.device, dtype=work.dtype)

    def __call__(self, part: Part) -> Part:
        """PNG bytes of the pictures."""
        try:
            return Part(part.unit, part.number, [one.png() for one in self._model.run_batch(part.data)])
        except ValueError as error:
            return Part(part.unit, -1, error=str(error))


def is_picture_of(file: Path, request: Generate) -> bool:
    """Whether a file is a whole picture that records this prompt, seed and size."""
    from unclip.generate.image import Image
    from unclip.generate.replay import read_replay

    try:
        if not file.is_file():
            return False
        provenance = read_provenance(file)
        recorded = read_replay(provenance).request
        Image.open(file)
    except (PictureError, RequestError, OSError):
        return False
    return isinstance(recorded, Generate) and (recorded.prompt, recorded.seed) == (
        request.prompt,
        request.seed,
    )
