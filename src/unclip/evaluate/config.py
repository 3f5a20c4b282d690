"""Configuration of an evaluation: the data set, the groups of captions, and how many of each are drawn."""

from dataclasses import dataclass

from unclip.evaluate.questions import Group

_LEAST = {
    "count": 1,
    "choices": 2,
    "retrieval_count": 2,
    "batch": 1,
    "ablation_count": 1,
    "manipulated": 1,
    "upsampled": 0,
    "distance_multiple": 0,
}


@dataclass(frozen=True, kw_only=True)
class SheetConfig:
    """How many pictures of each kind a sheet has."""

    everyday: int = 48
    others: int = 24
    real: int = 24

    def __post_init__(self) -> None:
        """Raise `ValueError` where there is nothing to name."""
        if min(self.everyday, self.others, self.real) < 0 or not self.everyday + self.others:
            raise ValueError("a sheet needs at least one drawn picture, and no count below 0")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured: `count` captions of each group are drawn, and each picture is judged among `choices` captions."""

    data: str = ""
    groups: tuple[Group, ...]
    train: str = "train"
    held_out: tuple[str, ...] = ("val",)
    """Splits on which retrieval is measured, with at most `retrieval_count` drawings."""
    retrieval_count: int = 1000
    count: int = 100
    distance_multiple: int = 0
    """Distances compare `distance_multiple` times `count` pictures of unseen captions with as many held-out drawings.
    Groups with enough drawings provide more than `count` pictures, as evenly as possible. 0 compares `count` per group."""
    choices: int = 100
    ablation_count: int = 50
    """Captions of each group in ablations, the first of `count`."""
    manipulated: int = 50
    """Drawings on which each manipulation is measured."""
    upsampled: int = 50
    """Drawings that are reduced and enlarged again; they need originals of the upsampler's size."""
    originals: str = ""
    """Folder or tar with those originals, if not in `data`; the first split of `held_out` is used."""
    bad_share: float = 0.01
    """Share of bad samples (unreadable, without a caption) above which an evaluation stops; one is passed over in any case."""
    seed: int = 0
    batch: int = 16
    sheet: SheetConfig = SheetConfig()
    """The sheet for naming by eye."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a count below its minimum, or a share out of range."""
        if not 0 <= self.bad_share <= 1:
            raise ValueError(f"bad_share is {self.bad_share}; it is a share from 0 to 1, such as 0.05")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
