"""The contract of a method: two halves in one file, and what each half is given.

The server half is `Method.conduct`: a straight-line program over a `Federation` that reads like the paper's algorithm. The
site half is a set of named actions, `Method.actions`, each a function of a `Site` (that hospital's arrays, vault and
randomness) and an `Order`, which returns the one `Payload` that it wants to send. Whether the payload leaves is the gate's
decision, not the method's.

What may answer each action stands in `Method.declares`: names, types and shapes of arrays, the words of the history. It is
written once. The server expects it, the site's gate lets nothing else out, and an action without a declaration lets nothing
out at all. A declaration follows from parameters, grid and order; the gate asks for it before the action has seen an image.

A method's code is trusted. It runs at the site and sees the images, and the gate cannot police the values of the arrays that
it declares: weights, codes or measures can be made to say anything, and code that runs in the site's process could change the
gate itself. Only who has read the code, and approves the hash of what is installed at the site, need not trust its author.
This package does not check such a hash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, final

import numpy as np

from fedprivseg.core.expected import MOST_MM, Array, Expected
from fedprivseg.core.kinds import METRIC, PUBLIC_START, KindSpec
from fedprivseg.core.method_card import MethodCard, Sent, What
from fedprivseg.core.model import Frozen
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import MEASURES, Entry, Grid, Order, Payload, Slices
from fedprivseg.core.task import Scope, SegmentationTask
from fedprivseg.methods.effort import Effort
from fedprivseg.methods.public_start import PublicStart

if TYPE_CHECKING:
    from torch import nn


class Parameters(Frozen):
    """A method's hyper-parameters: frozen, every one with a default."""


class Vault(Protocol):
    """Named sets of arrays on one site's disk, and nowhere else."""

    def has(self, name: str) -> bool:
        """Whether `name` was saved."""

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep `arrays` under `name`, atomically."""

    def load(self, name: str) -> dict[str, np.ndarray]:
        """What was saved under `name`."""


Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``."""


class Place(Protocol):
    """Where a half of a method runs."""

    @property
    def seed(self) -> int:
        """The run's root seed. A site derives every draw from it with its name."""

    @property
    def grid(self) -> Grid:
        """The network grid."""

    @property
    def task(self) -> SegmentationTask:
        """What is segmented."""

    @property
    def device(self) -> str:
        """torch device."""

    @property
    def progress(self) -> Progress:
        """Called while something long is under way."""

    def start(self) -> Mapping[str, np.ndarray]:
        """The weights of the method's `PublicStart`, by name. Raises FolderError where none was prepared, or none came."""


class Site(Place, Protocol):
    """What a method's site half may touch. Everything here stays at the site unless the gate releases it."""

    @property
    def name(self) -> str:
        """The site's name."""

    @property
    def vault(self) -> Vault:
        """The site's own disk."""

    def guarded(self, kind: KindSpec, codes: np.ndarray) -> np.ndarray:
        """Codes as they would leave under the scenario's protections. What an action returns is protected on its way out
        in any case; this is for a method that uses its own codes at the site."""

    def opened(self, kind: KindSpec, codes: np.ndarray) -> np.ndarray:
        """An answer in protected codes, as the site's own decoder knows them. Answers to orders come opened."""

    @property
    def labelled(self) -> bool:
        """Whether the site has training subjects with masks; one that has none is served with what others learn."""

    def training(self) -> Slices:
        """All slices of the site's training subjects, at all time points."""

    def attributes(self) -> Mapping[str, np.ndarray]:
        """What the site knows of the patients of `training()`'s slices: name -> (N,) int64, a label of 0, 1, ... a slice, -1
        where it is unknown."""

    def testing(self) -> np.ndarray:
        """Slices of the site's test subjects, (N, H, W) float32 in 0..1; their masks are for `measure` alone."""

    def measure(self, scores: np.ndarray, *, keep: bool = True) -> Payload:
        """Class scores (N, C, H, W) of `testing()`'s slices -> a METRIC payload, measured in 3-D on the original grid.

        Predictions are kept at the site, unless `keep` is false.
        """

    def validate(self, scores: np.ndarray) -> np.ndarray:
        """Class scores (N, C, H, W) of `testing()`'s slices -> Dice (K,) float64 per structure on the grid, all slices
        pooled; NaN for a structure that neither the scores nor the masks show. Quick, for learning curves."""


def _measured(payload: Payload, facts: Mapping[str, int]) -> str | None:
    """One row for each test subject, in every array; 0 where a measure is not known."""
    subjects = facts["subjects_test"]
    for name in MEASURES:
        value, known = payload.arrays[name], payload.arrays[f"{name}_known"]
        if not len(value) == len(known) == subjects:
            return f"{name!r} has {len(value)} rows, and {len(known)} of what is known, for {subjects} test subjects"
        if value[known == 0].any():
            return f"{name!r} has values where it says that none is known"
    return None


def measured_declared(method: Method, scope: Scope, order: Order) -> Expected:
    """What `Site.measure` sends: a row for each test subject."""
    cells = (None, len(scope.task.times), len(scope.task.structures))
    values = {name: Array("float64", cells, 0, 1 if name == "dice" else MOST_MM) for name in MEASURES}
    known = {f"{name}_known": Array("uint8", cells, 0, 1) for name in MEASURES}
    return Expected(METRIC, "measure", values | known, ("measure",), check=_measured)


class Codes(Protocol):
    """Rows of released code arrays of one site, on the server's disk: memory holds only the rows asked for."""

    def __len__(self) -> int: ...

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The rows at `indices` (n,), as one array (n, ...)."""


class Federation(Place, Protocol):
    """What a method's server half works with. Results are keyed by site and sorted by site."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites still taking part, sorted; one that failed or was excluded is not among them."""

    def ask(
        self,
        action: str,
        expected: Expected,
        *,
        number: int = 0,
        answers: Mapping[str, Payload] | None = None,
        sites: Sequence[str] | None = None,
    ) -> dict[str, Payload]:
        """Order `action` of every site and wait. Sites that fail, are blocked, or send what is not as `expected` are left out,
        and take no part any more.

        Args:
            action: of the method.
            expected: what it declares; see `Method.ask`.
            number: of the order; with the action it names one question of the run.
            answers: what each site gets with the order; it is looked at when the order is sent.
            sites: which sites; None: all.

        Returns:
            The payloads by site. Large arrays lie on the disk, and are read whenever they are looked at: who adds up what
            came of many sites looks at one site after the other.
        """

    def collect(self, action: str, expected: Expected) -> dict[str, Codes]:
        """Fetch all shards of `action` from every site into the code store. Shards already stored are not asked for."""

    def answer(self, kind: KindSpec, site: str, arrays: Mapping[str, np.ndarray], shard: int) -> Payload:
        """A payload of the server's for `site`."""

    def note(self, site: str, text: str) -> None:
        """Keep a remark on `site` for the result and the report, such as a class that its training lost."""

    def returned(self) -> tuple[str, ...]:
        """Ask sites that failed whether they are there again; those that are take part from now on. A method asks where it has
        use for them, and gives them what they missed."""

    def leave_out(self, site: str, why: str) -> None:
        """Let `site` take no part any more, for a reason that the method found. Raises QuorumError if too few are left."""

    def facts(self, site: str) -> Mapping[str, int]:
        """What `site` said in the roll call: subjects_train, subjects_test, slices_train, slices_test."""

    def sent(self, site: str) -> int:
        """Bytes of payloads to and from `site` so far."""

    def save_model(self, name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str] | None = None) -> None:
        """Keep a model of the server's under `name` and register it; see `core.models`."""

    def load_model(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """The arrays and facts of a model that was kept under `name`, also by an earlier attempt; None if there is none."""

    def record(self, entry: Entry) -> None:
        """Keep an entry for the result; one that tells of the same thing replaces it."""

    def stage(self, name: str) -> Any:
        """A context manager that times a stage of the run under `name`."""


@final
class Answers(Mapping[str, Payload]):
    """What each site gets with an order, made when it is sent and not kept: memory holds one of them.

    Args:
        sites: that get one.
        make: makes the answer for a site.
    """

    def __init__(self, sites: Iterable[str], make: Callable[[str], Payload]) -> None:
        self._sites, self._make = dict.fromkeys(sites), make
        self._last: tuple[str, Payload] | None = None

    def __getitem__(self, site: str) -> Payload:
        if site not in self._sites:
            raise KeyError(site)
        if self._last is None or self._last[0] != site:
            self._last = site, self._make(site)
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


def trainers(federation: Federation) -> list[str]:
    """The sites that still take part and have training slices, sorted. The others are served with what these learn."""
    return [site for site in federation.sites if federation.facts(site)["slices_train"]]


Action = Callable[[Any, Site, Order], Payload]
"""``action(method, site, order)``: one step of the site half."""

Declaration = Expected | Callable[[Any, Scope, Order], Expected]
"""What may answer an action: the same always, or ``declaration(method, scope, order)``. Of the order it looks at no more than
the names of the arrays that the order brings, which are the same for every site."""


class Method(ABC):
    """A way of segmenting together. Final subclasses only; one file each; listed in `METHODS`."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    exports: ClassVar[frozenset[KindSpec]]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({"default": {}})
    parameters_type: ClassVar[type[Parameters]]
    actions: ClassVar[Mapping[str, Action]]
    declares: ClassVar[Mapping[str, Declaration]]
    """What may answer each of the `actions`; one that is not here lets nothing out."""
    sends: ClassVar[tuple[Sent, ...]] = ()
    coded: ClassVar[bool] = False
    """Whether sites send codes and the server alone has a network."""

    def __init__(self, variant: str, parameters: Any) -> None:
        self.variant = variant
        self.parameters = parameters

    @property
    def techniques(self) -> Mapping[KindSpec, tuple[str, ...]]:
        """What the method itself does to payloads of a kind, in the words of Table 2 (T/SCGS 313008-2024 clause 5.2)."""
        return {}

    @property
    def card(self) -> MethodCard:
        """What a run's folder says of the method."""
        return MethodCard(title=self.title, coded=self.coded, sends=self.sends)

    @property
    def declared(self) -> frozenset[KindSpec]:
        """The kinds that may leave a site under this method's own parameters: `exports`, or fewer."""
        return self.exports

    @property
    def in_rounds(self) -> Method | None:
        """What of the method trains weights in rounds, whose updates leave: itself, a part of it, or nothing."""
        return None

    def announced(self, order: Order) -> Mapping[str, np.ndarray] | None:
        """What of the answer in `order` the server sends to every site alike, and signs for: the public start, and the weights
        that sites train on. None: nothing."""
        alike = order.answer is not None and order.answer.kind == PUBLIC_START
        return order.answer.arrays if alike and order.answer is not None else None

    def check(self, task: SegmentationTask) -> None:
        """Raises ScenarioError if the parameters do not fit `task`."""
        return

    def check_sites(self, sites: int) -> None:
        """Raises ScenarioError if the parameters do not fit so many sites."""
        return

    def expected(self, order: Order, scope: Scope) -> Expected | None:
        """What may answer `order`, before protections; None for an action that declares nothing."""
        declared = self.declares.get(order.action)
        return declared if declared is None or isinstance(declared, Expected) else declared(self, scope, order)

    def ask(
        self,
        federation: Federation,
        action: str,
        *,
        number: int = 0,
        answers: Mapping[str, Payload] | None = None,
        sites: Sequence[str] | None = None,
    ) -> dict[str, Payload]:
        """`Federation.ask` for what `action` declares."""
        expected = self._declared(federation, Order(action, number, next(iter((answers or {}).values()), None)))
        return federation.ask(action, expected, number=number, answers=answers, sites=sites)

    def collect(self, federation: Federation, action: str) -> dict[str, Codes]:
        """`Federation.collect` for what `action` declares."""
        return federation.collect(action, self._declared(federation, Order(action)))

    def _declared(self, federation: Federation, order: Order) -> Expected:
        expected = self.expected(order, Scope(federation.grid, federation.task))
        if expected is None:
            raise ValueError(f"{self.name} does not declare what answers {order.action!r}")
        return expected

    def effort(self, grid: Grid, slices: int) -> Effort | None:
        """About how long training takes at a site of `slices` training slices and at the server; None: nobody measured it."""
        return None

    @property
    def needs_labels(self) -> bool:
        """Whether a site without training masks cannot be served: its own network is trained by nobody else."""
        return False

    def public_start(self, scope: Scope) -> PublicStart | None:
        """How the networks of this method are trained on public slices before the run; None: they begin from random weights."""
        return None

    @abstractmethod
    def conduct(self, federation: Federation) -> dict[str, Payload]:
        """The server half, from the first order to the last; returns each site's METRIC payload."""

    @abstractmethod
    def predict(self, site: Site, models: ModelStore, images: np.ndarray) -> np.ndarray:
        """Class scores (N, C, H, W) for slices (N, H, W) of that site, with its vault and the server's models."""


class CodedMethod(Method):
    """A method whose sites send codes of pictures. What it says of its encoders is for those who measure what they leak."""

    coded: ClassVar[bool] = True

    @abstractmethod
    def encode_pictures(self, site: Site, what: What, pictures: np.ndarray) -> np.ndarray:
        """Pictures (N, K, H, W) float32 in 0..1, K = 1 for images, and one a structure for masks -> codes (N, C, h, w) as
        they would be sent, before any protection."""

    @abstractmethod
    def decode_pictures(self, site: Site, what: What, codes: np.ndarray) -> np.ndarray | None:
        """What the site's own decoder makes of codes: pictures (N, K, H, W) float32 in 0..1; None if it has none."""

    def views(self, sent: Sent) -> int:
        """How many codes of each slice the stream `sent` holds, in blocks of all slices, whose views everybody knows."""
        return 1

    def upright(self, pictures: np.ndarray, view: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (N, K, H, W) of a known view, brought back to how the slices lie, and how far each pixel (H, W) is of the
        slice, 0..1: outside of what the view shows they are 0."""
        return pictures, np.ones(pictures.shape[2:], np.float32)

    def first_view(self, site: Site, images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Training slices (N, H, W), in the order in which they leave, as the first view that is sent shows them."""
        return images, masks

    @property
    def answering(self) -> bool:
        """Whether the server answers codes with codes."""
        return type(self).answers is not CodedMethod.answers

    def answers(self, site: Site, models: ModelStore, codes: np.ndarray) -> np.ndarray | None:
        """The mask codes (n, C, h, w) float16 that the server answers image codes of `site` with; None if it answers none."""
        return None

    @abstractmethod
    def architecture(self, what: What, task: SegmentationTask) -> nn.Module:
        """An untrained encoder of pictures (N, K, H, W), as everybody knows it; initial weights from the global state."""
