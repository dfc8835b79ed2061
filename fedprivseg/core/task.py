"""What is segmented: which structures, at which time points, of which images, and how people call it.

A task stands in the resolved scenario and is given to whoever needs it; nothing imports one. A scenario may state it in a table
``[task]``; what it leaves out is the data set's own (`imaging.dataset.Dataset.task`).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, final

from pydantic import Field, StringConstraints, field_validator

from fedprivseg.core.model import Frozen
from fedprivseg.core.records import Grid

Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_-]{0,31}$")]
"""The name of a structure or a time point: it stands in names of files and arrays, and in tables."""

Colour = Annotated[str, StringConstraints(pattern=r"^(#[0-9A-Fa-f]{6})?$")]

COLOURS = (
    *(("#D55E00", "#FF8A3D"), ("#009E73", "#2FE0AE"), ("#0072B2", "#5AB8FF"), ("#CC79A7", "#F2A6D0")),
    *(("#E69F00", "#FFC94D"), ("#56B4E9", "#9AD7FF"), ("#8C6D31", "#D9B46A"), ("#6A51A3", "#B39DE0")),
)
"""For structures without colours of their own, in turn: one for marks on white, and a lighter one for lines on a dark image.
Okabe and Ito, Color Universal Design, 2008, and two more."""

MOST_STRUCTURES = 255
"""A mask holds a label in one byte, and 0 is the background."""


class Structure(Frozen):
    """One structure that is segmented.

    Attributes:
        name: short, as in tables, such as ``lesion``.
        label: its value in every mask in memory and in every mask that is written; 0 is the background.
        meaning: a sentence for a reader who is no specialist; empty for none.
        colour: for marks on white, ``#RRGGBB``; empty: one of `COLOURS`.
        line: for outlines on a dark image.
    """

    name: Word
    label: int = Field(ge=1, le=MOST_STRUCTURES)
    meaning: str = ""
    colour: Colour = ""
    line: Colour = ""


class TimePoint(Frozen):
    """One of the moments at which every subject is imaged and labelled, such as end-diastole."""

    name: Word
    meaning: str = ""


class SegmentationTask(Frozen):
    """What is segmented.

    Attributes:
        name: the task's own.
        structures: in the order of their labels 1, 2, 3...; empty: those of the data set, which a resolved scenario names.
        time_points: in the order in which they are told; one for images without a time.
        body_part: what is imaged, such as ``heart``.
        modality: the type of the data in the words of Table 1 (T/SCGS 313008-2024 clause 5.1.3), such as ``cine-mri``.
        region: what all structures are together; reconstructions are also scored around it alone.
        slice: what one slice is called.
        aim: what is learned, after 'hospitals learned together to'.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,47}$")] = "segmentation"
    structures: tuple[Structure, ...] = Field(default=(), max_length=MOST_STRUCTURES)
    time_points: tuple[TimePoint, ...] = Field(default=(TimePoint(name="scan"),), min_length=1, max_length=64)
    body_part: str = "body"
    modality: str = "mri"
    region: str = "structures"
    slice: str = "slice"
    aim: str = "outline structures in medical images"

    @field_validator("structures")
    @classmethod
    def _counted(cls, value: tuple[Structure, ...]) -> tuple[Structure, ...]:
        labels = [structure.label for structure in value]
        if labels != list(range(1, len(value) + 1)):
            raise ValueError(f"labels are {labels}; they must be 1, 2, 3 and so on, in this order")
        _distinct([structure.name for structure in value])
        return value

    @field_validator("time_points")
    @classmethod
    def _named_once(cls, value: tuple[TimePoint, ...]) -> tuple[TimePoint, ...]:
        _distinct([point.name for point in value])
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the structures, in the order of their labels."""
        return tuple(structure.name for structure in self.structures)

    @property
    def times(self) -> tuple[str, ...]:
        """The names of the time points."""
        return tuple(point.name for point in self.time_points)

    @property
    def classes(self) -> int:
        """How many labels there are, with the background."""
        return len(self.structures) + 1

    @property
    def colours(self) -> dict[str, str]:
        """Structure -> its colour on white."""
        return {each.name: each.colour or COLOURS[at % len(COLOURS)][0] for at, each in enumerate(self.structures)}

    @property
    def lines(self) -> dict[str, str]:
        """Structure -> its colour on a dark image."""
        return {each.name: each.line or COLOURS[at % len(COLOURS)][1] for at, each in enumerate(self.structures)}


@final
@dataclass(frozen=True)
class Scope:
    """What decides the shapes of a method's arrays: the grid and the task. Sites and federations have both as well."""

    grid: Grid
    task: SegmentationTask


def _distinct(names: list[str]) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{repeated[0]!r} is named twice; names must differ")


@cache
def task_named(name: str) -> SegmentationTask:
    """The task of the file ``tasks/<name>.toml`` of this package."""
    text = (resources.files("fedprivseg.core") / "tasks" / f"{name}.toml").read_text(encoding="utf-8")
    return SegmentationTask.model_validate(tomllib.loads(text))


def default_task() -> SegmentationTask:
    """The task of a scenario that states none, and of runs of releases that knew no other."""
    return task_named("short-axis-cine")
