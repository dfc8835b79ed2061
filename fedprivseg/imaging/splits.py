"""Which subjects train and which test: always by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter

from fedprivseg.core.config import DataConfig, SiteConfig
from fedprivseg.core.errors import DataError
from fedprivseg.core.format1 import subject_of_format_1
from fedprivseg.core.records import Subject
from fedprivseg.core.seeds import numpy_generator

_Kept = Annotated[Subject, BeforeValidator(subject_of_format_1)]


@dataclass(frozen=True)
class Cohort:
    """One site's subjects, each list sorted by code. No subject stands in two.

    Attributes:
        train: to train on.
        test: to test on.
        aside: would be trained on if the scenario did not say that the site has fewer, or none with labels.
    """

    train: tuple[_Kept, ...]
    test: tuple[_Kept, ...]
    aside: tuple[_Kept, ...] = ()


COHORT: TypeAdapter[Cohort] = TypeAdapter(Cohort)
"""A cohort as JSON, in a site's own folder."""


def own_subjects(subjects: Sequence[Subject], site: SiteConfig) -> tuple[Subject, ...]:
    """Those of `subjects` that are the site's, with the order of labels that it states, sorted by code."""
    own = (replace(s, order=site.order or s.order) for s in subjects if str(s.centre) == str(site.place))
    return tuple(sorted(own, key=lambda s: s.code))


def cohort(subjects: Sequence[Subject], site: SiteConfig, data: DataConfig) -> Cohort:
    """The labelled subjects of `site`, split as `data` says.

    Subjects for validation are used by neither side of ``split = "release"``. A split by patient leaves at least one
    subject to train on. Folds deal all labelled subjects, whatever the release calls them; those of one ``data.seed`` and one
    number of folds are one partition. A site that has labelled subjects for the test alone trains nothing. Raises DataError if
    the centre has no labelled subject.
    """
    centre = site.place
    own = [s for s in own_subjects(subjects, site) if s.labelled]
    if data.split == "release":
        train = tuple(s for s in own if s.split == "train")
        test = tuple(s for s in own if s.split == "test")
    else:
        chosen = {*_dealt(len(own), centre, data)}
        train = tuple(s for index, s in enumerate(own) if index not in chosen)
        test = tuple(s for index, s in enumerate(own) if index in chosen)
    whole = train
    if site.name in data.unlabelled:
        train = ()
    if data.most_training is not None:
        drawn = numpy_generator(data.seed, "most training", centre).permutation(len(train))[: data.most_training]
        train = tuple(train[place] for place in sorted(drawn))
    if not train and not test:
        centres = sorted({str(s.centre) for s in subjects if s.labelled})
        raise DataError(
            f"centre {centre} has no labelled subject (split = {data.split!r}; {len(own)} labelled in all). "
            f"Centres with labelled subjects: {', '.join(centres) or 'none'}. "
            'Leave the site out, or try data.split = "by-patient".'
        )
    return Cohort(train, test, tuple(s for s in whole if s not in train))


def _dealt(count: int, centre: int | str, data: DataConfig) -> list[int]:
    """Which of a centre's `count` subjects test."""
    if data.split == "folds":
        order = numpy_generator(data.seed, "folds", centre).permutation(count)
        return [int(index) for index in order[data.fold :: data.folds]]
    order = numpy_generator(data.seed, "split", centre).permutation(count)
    return [int(index) for index in order[: min(round(data.test_fraction * count), max(count - 1, 0))]]
