"""The kinds of payload that may cross a boundary: one entry a kind, which everything else reads.

A kind is a piece of text, its name on the wire and in ledgers, that knows what else there is to know of it. A new kind is one
`KindSpec`: in `KINDS`, or in a package of your own that names it as an entry point::

    [project.entry-points."fedprivseg.kinds"]
    prototype = "my_package.prototypes:PROTOTYPE"

A new kind leaves no hospital before that hospital's policy lists it.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, final

from pydantic import AfterValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from fedprivseg.core.errors import RequestError
from fedprivseg.core.validation import suggestion

Discloses = Literal["images", "individuals", "sum", "counts"]
"""What a payload tells: the images themselves; something of each patient, so that patients could be re-identified; by itself
nothing, only the sum over sites does; counts and measures, which identify nobody. Its level (clause 5.5) follows from that."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class KindSpec(str):
    """A kind of payload.

    Attributes:
        value: its name on the wire, in ledgers and in policies.
        label: what a report calls it, in the plural.
        sentence: what it is, for a reader who is no engineer.
        noun: one payload of it, in a lineage.
        purposes: what it is for in the methods that send it.
        discloses: what it tells of patients.
        derived_from: whose data it is made of: all training subjects, all test subjects, the subjects of the slices in it, or
            nobody's (None). Of test subjects it has one row each.
        lineage: how a lineage draws it.
        techniques: what it is in the words of Table 2 (T/SCGS 313008-2024 clause 5.2) before any protection.
        stored: whether the server keeps its payloads: all, those of the first round, or none.
        protectable: whether its arrays are rows of codes, (N, C, ...) floats, that a scenario's protections may change.
        max_bytes: the largest payload, names and header included; None for no limit of its own.
        max_values: the most values in one of its arrays; None for no limit.
        max_axes: the most axes of one of its arrays; None for no limit.
    """

    value: str
    _: KW_ONLY
    label: str
    sentence: str
    noun: str
    purposes: tuple[str, ...]
    discloses: Discloses
    derived_from: Literal["train", "test", "slices"] | None
    lineage: Literal["code", "raw", "weights", "measures", "status"]
    techniques: tuple[str, ...]
    stored: Literal["always", "first", "never"] = "never"
    protectable: bool = False
    max_bytes: int | None = None
    max_values: int | None = None
    max_axes: int | None = None

    def __new__(cls, value: str, **traits: Any) -> KindSpec:
        """The text; the traits are fields."""
        return super().__new__(cls, value)

    @property
    def raw(self) -> bool:
        """Whether it is images or masks as they are, which a policy has to allow explicitly."""
        return self.discloses == "images"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A model reads the name and has the kind."""
        return core_schema.no_info_after_validator_function(_named, core_schema.str_schema())


IMAGE_CODE = KindSpec(
    "image-code",
    label="coded images",
    sentence="Numbers that a hospital's own network computes from an image slice.",
    noun="image code",
    purposes=("train", "infer"),
    discloses="individuals",
    derived_from="slices",
    lineage="code",
    techniques=("data transformation",),
    stored="always",
    protectable=True,
)

MASK_CODE = KindSpec(
    "mask-code",
    label="coded outlines",
    sentence="Numbers that a hospital's own network computes from the reference outlines.",
    noun="mask code",
    purposes=("train",),
    discloses="individuals",
    derived_from="slices",
    lineage="code",
    techniques=("data transformation",),
    stored="always",
    protectable=True,
)

WEIGHTS = KindSpec(
    "weights",
    label="network weights",
    sentence="The parameters of a network that was trained on the hospital's images.",
    noun="weight update",
    purposes=("train",),
    discloses="individuals",
    derived_from="train",
    lineage="weights",
    techniques=("statistics",),
    stored="first",
)

MASKED_WEIGHTS = KindSpec(
    "masked-weights",
    label="masked network weights",
    sentence="The same under masks that cancel only in the sum over all hospitals.",
    noun="masked update",
    purposes=("train",),
    discloses="sum",
    derived_from="train",
    lineage="weights",
    techniques=("symmetric encryption",),  # masks are the key stream of AES in counter mode, added modulo 2**64
    stored="first",
)

MASK_SHARE = KindSpec(
    "mask-share",
    label="keys and shares of masks",
    sentence="What lets the server open the masked sum, and no single hospital's part.",
    noun="mask share",
    purposes=("train",),
    discloses="sum",
    derived_from=None,
    lineage="status",
    techniques=("symmetric encryption",),  # shares are under AES-GCM
)

PUBLIC_ANSWERS = KindSpec(
    "public-answers",
    label="answers on public phantoms",
    sentence="What a network that was trained on the hospital's images answers on made-up images that everybody has.",
    noun="answer on phantoms",
    purposes=("train",),
    discloses="individuals",
    derived_from="train",
    lineage="weights",
    techniques=("statistics",),
    stored="first",
)

PUBLIC_START = KindSpec(
    "public-start",
    label="public starts",
    sentence="Weights and images made of phantoms, which the server sends to every hospital; no patient is in them.",
    noun="public start",
    purposes=("train",),
    discloses="counts",
    derived_from=None,
    lineage="status",
    techniques=("statistics",),
)

METRIC = KindSpec(
    "metric",
    label="scores",
    sentence="How well each test subject was segmented: Dice and distances, by phase and structure.",
    noun="metric",
    purposes=("measure",),
    discloses="counts",
    derived_from="test",
    lineage="measures",
    techniques=("statistics",),
    max_bytes=1 << 20,
    max_axes=3,
)

RAW = KindSpec(
    "raw",
    label="raw images",
    sentence="Images or outlines as they are. A gate refuses these unless its policy allows them explicitly.",
    noun="raw shard",
    purposes=("train",),
    discloses="images",
    derived_from="slices",
    lineage="raw",
    techniques=(),
    stored="always",
)

STATUS = KindSpec(
    "status",
    label="status messages",
    sentence="Counts of subjects and slices, and whether a step succeeded.",
    noun="status",
    purposes=("describe", "train", "infer"),
    discloses="counts",
    derived_from=None,
    lineage="status",
    techniques=("statistics",),
    max_bytes=1 << 16,
    max_values=64,
)

KINDS: tuple[KindSpec, ...] = (
    IMAGE_CODE,
    MASK_CODE,
    WEIGHTS,
    MASKED_WEIGHTS,
    MASK_SHARE,
    METRIC,
    RAW,
    STATUS,
    PUBLIC_ANSWERS,
    PUBLIC_START,
)
"""Those of this package."""

GROUP = "fedprivseg.kinds"
"""The group of entry points by which other packages name theirs."""


@cache
def known_kinds() -> tuple[KindSpec, ...]:
    """All kinds: `KINDS`, then those of installed packages by name. Raises RequestError if a package names something that is no
    kind, or a name that is taken."""
    found = {kind.value: kind for kind in KINDS}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        kind = point.load()
        if not isinstance(kind, KindSpec):
            raise RequestError(f"entry point {point.name!r} of {GROUP} is {point.value}, which is no KindSpec")
        if found.setdefault(kind.value, kind) is not kind:
            raise RequestError(
                f"entry point {point.name!r} of {GROUP} names a kind {kind.value!r}, which exists already"
            )
    return tuple(found.values())


def find_kind(value: object) -> KindSpec | None:
    """The kind of that name, such as a ledger states it; None if there is none here."""
    return next((kind for kind in known_kinds() if kind == value), None)


def kind_named(value: object) -> KindSpec:
    """The kind of that name. Raises RequestError that names those there are."""
    found = find_kind(value)
    if found is not None:
        return found
    names = sorted(known_kinds())
    if value == "key":
        raise RequestError(
            f"no method sends a payload of kind 'key' any more: delete it; the kinds are: {', '.join(names)}"
        )
    hint = suggestion(str(value), names)
    raise RequestError(
        f"unknown kind of payload {value!r:.60}{hint}; the kinds are: {', '.join(names)}. The package that brings another kind "
        f"names it in its entry points {GROUP}"
    )


def _named(value: str) -> KindSpec:
    try:
        return kind_named(value)
    except RequestError as fault:
        raise ValueError(str(fault)) from None  # what pydantic lists with its place


def _protectable(kind: KindSpec) -> KindSpec:
    if not kind.protectable:
        names = ", ".join(sorted(each for each in known_kinds() if each.protectable))
        raise ValueError(f"a protection changes codes, and {kind!s} is none; it may be for: {names}")
    return kind


ProtectableKind = Annotated[KindSpec, AfterValidator(_protectable)]
"""A kind that a scenario may put protections on, and that a policy may demand them for."""
