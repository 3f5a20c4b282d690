"""Data sets by path: `open_dataset` recognises folders, tar shards and the procedural shapes."""

from pathlib import Path

from unclip.data.folder import FolderDataset
from unclip.data.sample import BadSample, BadSamples, Dataset, Sample, TooManyBadSamples
from unclip.data.shapes import Shapes
from unclip.data.shards import ShardDataset

__all__ = ["BadSample", "BadSamples", "Dataset", "Sample", "TooManyBadSamples", "open_dataset"]


def open_dataset(path: str | Path, split: str | None = None, bad: BadSamples | None = None) -> Dataset:
    """Open a folder of pictures, a folder of tar shards, one tar, or `shapes` (the procedural set).

    split: of a folder of shards named `NAME-SPLIT-NUMBER.tar`, take this split only; all shards where it is None. Raises
    FileNotFoundError for nothing there, ValueError for a split that does not exist (naming those that do).
    """
    if str(path) == "shapes":
        return Shapes(seed=1 if split == "val" else 0)
    path = Path(path)
    if path.is_file() and path.suffix == ".tar":
        return ShardDataset([path], bad)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is neither a folder, nor a .tar file, nor the word `shapes`")
    tars = sorted(path.glob("*.tar"))
    if not tars:
        if split is not None:
            raise ValueError(f"{path} holds no tar shards, so it has no split {split!r}")
        return FolderDataset(path, bad)
    if split is not None:
        splits = sorted({_split_of(tar) for tar in tars})
        tars = [tar for tar in tars if _split_of(tar) == split]
        if not tars:
            raise ValueError(f"{path} has no split {split!r}; it has {', '.join(splits)}")
    return ShardDataset(tars, bad)


def _split_of(tar: Path) -> str:
    """'heldout-style' of 'artwork-heldout-style-00000.tar'."""
    return tar.stem.partition("-")[2].rpartition("-")[0]
