"""What a finished run gave away: the battery of attacks on what its sites' ledgers show as released.

This is a measurement by whoever simulates, who holds every site's images and can therefore be the judge. An attack itself is
given the released payloads and what its adversary is declared to know, and nothing else (`attacks.attack.View`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import save_file

from fedprivseg.attacks import choose
from fedprivseg.attacks.attack import FULL, SMALL, Decode, Encode, Progress, Reconstruction, View
from fedprivseg.attacks.judge import Truth, judge, recognised
from fedprivseg.compute import threads
from fedprivseg.config import Scenario
from fedprivseg.errors import FolderError, LedgerError, RequestError
from fedprivseg.measures import LABELS, ssim
from fedprivseg.methods import resolve
from fedprivseg.methods.method import CodedMethod, Sent, What
from fedprivseg.policy import ledger
from fedprivseg.records import Kind, Payload, digest
from fedprivseg.seeds import derive
from fedprivseg.site.bench import Bench, Known, station_folder
from fedprivseg.site.station import Station

VERSION = 1
MOST_AUXILIARY = 240
"""Pictures that an adversary holds at most, spread evenly over what other sites have."""

MASK_VICTIMS = 3
"""Most training subjects whose mask codes are attacked, and half of them at most: pairs come from the others. (Mask codes of
test subjects are never sent.)"""

HEADLINE: Mapping[What, tuple[str, ...]] = {"images": ("SSIM", "SSIM, heart"), "masks": ("Dice",)}
"""The measures whose worst normalised leakage stands for a run."""

_KINDS: Mapping[What, Kind] = {"images": Kind.IMAGE_CODE, "masks": Kind.MASK_CODE}

Budget = Literal["small", "full"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measure(_Frozen):
    """A `judge.Figure`."""

    measure: str
    value: float
    low: float | None
    high: float | None
    floor: float
    neighbour: float
    own_decoder: float | None
    ceiling: float | None
    leakage: float | None


class Redrawn(_Frozen):
    """One attack, in one setting, on the codes of one site."""

    attack: str
    title: str
    paper: str
    setting: str
    site: str
    what: What
    knows: str
    slices: int
    subjects: int
    measures: tuple[Measure, ...]
    recognised: float
    chance: float
    seconds: float

    @property
    def leakage(self) -> float:
        """The worst normalised leakage among the headline measures."""
        return max(m.leakage for m in self.measures if m.measure in HEADLINE[self.what] and m.leakage is not None)

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        first = self.measures[0]
        setting = f" ({self.setting})" if self.setting else ""
        return (
            f"{self.title}{setting}: with {self.knows}, it redraws {self.what} of {self.site} to a {first.measure} of "
            f"{first.value:.2f}, where no code at all gives {first.floor:.2f} and the picture itself {first.ceiling:.0f}; "
            f"normalised leakage {self.leakage:.2f}. The right patient is the nearest in {self.recognised:.0%} of slices "
            f"(chance {self.chance:.0%})."
        )


class Leakage(_Frozen):
    """The content of ``attacks.json``."""

    version: int = VERSION
    scenario_sha256: str
    method: str
    variant: str
    protections: tuple[str, ...]
    budget: Budget
    sites: tuple[str, ...]
    auxiliary: str
    redrawn: tuple[Redrawn, ...]
    left_out: tuple[str, ...]
    seconds: float

    def worst(self, what: What) -> Redrawn | None:
        """The attack that gives away most of one kind of picture."""
        own = [each for each in self.redrawn if each.what == what]
        return max(own, key=lambda each: each.leakage, default=None)


def attack_run(
    run: Path,
    budget: Budget = "small",
    attacks: Sequence[str] = (),
    sites: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> Leakage:
    """Attack the finished run in `run`; writes ``attacks.json``, and pictures to ``attacks.safetensors`` if the scenario
    shows images. budget: ``small`` attacks the first site, ``full`` all of them, longer. attacks, sites: names; none is all.

    Raises RequestError for an unknown name or a folder without a finished run, LedgerError if a stored payload is not in its
    site's ledger as released.
    """
    if not (run / "result.json").exists():
        raise FolderError(f"{run} holds no finished run (no result.json); run the scenario into it first")
    scenario = Scenario.model_validate_json((run / "scenario.json").read_text(encoding="utf-8"))
    names = [site.name for site in scenario.sites]
    if unknown := sorted(set(sites) - set(names)):
        raise RequestError(f"unknown site {unknown[0]!r}; the sites of this run are: {', '.join(names)}")
    chosen = choose(attacks)
    victims = list(sites) or (sorted(names) if budget == "full" else sorted(names)[:1])
    method, start = resolve(scenario.method), time.perf_counter()
    benches = {
        name: Bench(Station.read(station_folder(run, name) / "station.json"), scenario) for name in sorted(names)
    }
    redrawn: list[Redrawn] = []
    left_out: list[str] = []
    pictures: dict[str, np.ndarray] = {}
    if isinstance(method, CodedMethod):
        with threads(scenario.resources.cpus):
            for site in victims:
                battery = _Battery(run, scenario, method, benches, site, budget, progress)
                for what in _KINDS:
                    found, lacking, shown = battery.attack(what, chosen)
                    redrawn += found
                    left_out += lacking
                    pictures |= shown
    result = Leakage(
        scenario_sha256=scenario.sha256,
        method=method.name,
        variant=method.variant,
        protections=tuple(config.name for config in scenario.protections),
        budget=budget,
        sites=tuple(victims),
        auxiliary="training slices of the other sites",
        redrawn=tuple(redrawn),
        left_out=tuple(dict.fromkeys(left_out)),
        seconds=time.perf_counter() - start,
    )
    (run / "attacks.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    if pictures and scenario.report.images:
        save_file({name: np.ascontiguousarray(value) for name, value in pictures.items()}, run / "attacks.safetensors")
    return result


def read_leakage(run: Path) -> Leakage | None:
    """What was measured of the run in `run`, or None if it was not attacked."""
    path = run / "attacks.json"
    return Leakage.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


class _Battery:
    """All attacks on one site."""

    def __init__(
        self,
        run: Path,
        scenario: Scenario,
        method: CodedMethod,
        benches: Mapping[str, Bench],
        site: str,
        budget: Budget,
        progress: Progress,
    ) -> None:
        self._run, self._scenario, self._method, self._benches = run, scenario, method, benches
        self._site, self._bench, self._others = site, benches[site], [b for n, b in benches.items() if n != site]
        self._effort = FULL if budget == "full" else SMALL
        self._progress = progress
        self._queries = 0

    def attack(
        self, what: What, attacks: Sequence[type[Reconstruction]]
    ) -> tuple[list[Redrawn], list[str], dict[str, np.ndarray]]:
        """(what each attack came to, why some could not be run, pictures of the worst)."""
        victims = next((sent for sent in self._method.sends if sent.what == what), None)
        pairs = next((sent for sent in self._method.sends if sent.what == what and sent.side == "train"), None)
        if victims is None:
            return [], [], {}
        known = self._bench.known(victims.side)
        codes = self._released(victims, len(known.images))
        chosen = slice(None) if victims.side == "test" else known.subjects < _victims(known)
        view = View(
            codes=codes[chosen].astype(np.float32),
            shape=(1 if what == "images" else len(LABELS), *known.images.shape[1:]),
            effort=self._effort,
            seed=derive(self._scenario.seed, "attacks", self._site, what),
            auxiliary=self._auxiliary(what),
            query=self._query(what),
            pairs=None if pairs is None else self._pairs(what, pairs, victims),
            foreign=self._foreign(what, codes[:1]),
            architecture=lambda: self._method.architecture(what),
            device=self._bench.device,
            progress=self._progress,
        )
        truth = Truth(_pictures(known, what)[chosen], known.subjects[chosen], known.masks[chosen])
        own = self._method.decode_pictures(self._bench, what, self._bench.opened(_KINDS[what], codes[chosen]))
        gallery, owners, mine = self._gallery(what, victims.side, known.subjects[chosen])
        found: list[Redrawn] = []
        lacking: list[str] = []
        best: tuple[float, np.ndarray] | None = None
        for kind in attacks:
            attack = kind()
            if missing := view.lacks(attack.knows):
                lacking.append(f"{attack.title} on {what}: there is no {', '.join(missing)} in this method")
                continue
            begin = time.perf_counter()
            for setting, drawn in attack.carry_out(view).items():
                assert view.auxiliary is not None
                figures = judge(drawn, truth, view.auxiliary, view.seed, own)
                one = Redrawn(
                    attack=attack.name,
                    title=attack.title,
                    paper=attack.paper,
                    setting=setting,
                    site=self._site,
                    what=what,
                    knows=attack.in_words(),
                    slices=len(drawn),
                    subjects=len(np.unique(truth.subjects)),
                    measures=tuple(Measure(**asdict(figure)) for figure in figures),
                    recognised=recognised(drawn, gallery, owners, mine),
                    chance=float((owners[:, None] == mine[None]).mean()),
                    seconds=time.perf_counter() - begin,
                )
                begin = time.perf_counter()
                found.append(one)
                if best is None or one.leakage > best[0]:
                    best = one.leakage, drawn
        shown = {} if best is None else self._examples(what, truth, best[1], own)
        return found, lacking, shown

    def _released(self, sent: Sent, count: int) -> np.ndarray:
        """The first `count` rows of a stream, from payloads that the site's ledger shows as released."""
        folder = station_folder(self._run, self._site)
        ledger.verify(folder / "ledger.jsonl")
        released = {
            line.facts.get("digest") for line in ledger.read(folder / "ledger.jsonl") if line.event == "release"
        }
        rows: list[np.ndarray] = []
        for path in sorted((self._run / "server" / "codes" / self._site / sent.action).glob("*.safetensors")):
            body = path.read_bytes()
            if digest(body) not in released:
                raise LedgerError(
                    f"a stored payload of {self._site} ({sent.action} {path.stem}) is not in its ledger as released"
                )
            rows.append(Payload.decode(body).arrays["codes"])
            if sum(map(len, rows)) >= count:
                break
        return np.concatenate(rows)[:count]

    def _auxiliary(self, what: What) -> np.ndarray:
        pictures = np.concatenate([_pictures(other.known("train"), what) for other in self._others])
        spread = np.linspace(0, len(pictures) - 1, min(MOST_AUXILIARY, len(pictures))).round().astype(int)
        return pictures[spread]

    def _query(self, what: What) -> Encode:
        def query(pictures: np.ndarray) -> np.ndarray:
            self._queries += 1
            codes = self._method.encode_pictures(self._bench, what, pictures)
            return self._bench.shield.apply(_KINDS[what], codes, ("query", self._queries))[0].astype(np.float32)

        return query

    def _pairs(self, what: What, sent: Sent, victims: Sent) -> tuple[np.ndarray, np.ndarray] | None:
        known = self._bench.known(sent.side)
        codes = self._released(sent, len(known.images)).astype(np.float32)
        others = slice(None) if victims.side != sent.side else known.subjects >= _victims(known)
        return (_pictures(known, what)[others], codes[others]) if len(codes[others]) else None

    def _foreign(self, what: What, sample: np.ndarray) -> Mapping[str, Decode] | None:
        found: dict[str, Decode] = {}
        for other in self._others:
            if self._method.decode_pictures(other, what, sample) is not None:
                found[other.name] = _decoder(self._method, other, what)
        return found or None

    def _gallery(self, what: What, side: Literal["train", "test"], own: np.ndarray) -> tuple[np.ndarray, ...]:
        """(pictures of every site's subjects of that side, whose they are, whose the attacked ones are)."""
        pictures, owners, first, mine = [], [], 0, own
        for name, bench in self._benches.items():
            known = bench.known(side)
            if not len(known.images):
                continue
            pictures.append(_pictures(known, what))
            owners.append(known.subjects + first)
            if name == self._site:
                mine = own + first
            first += len(known.people)
        return np.concatenate(pictures), np.concatenate(owners), mine

    def _examples(self, what: What, truth: Truth, drawn: np.ndarray, own: np.ndarray | None) -> dict[str, np.ndarray]:
        """Best, median and worst slice of the strongest attack that show some heart, for the report of a simulation."""
        score = ssim(drawn.mean(axis=1), truth.pictures.mean(axis=1))
        shown = np.flatnonzero(truth.masks.any(axis=(1, 2)))
        order = shown[np.argsort(score[shown])][::-1]
        chosen = order[[0, len(order) // 2, -1]]
        arrays = {"truth": truth.pictures[chosen], "drawn": drawn[chosen]}
        arrays |= {} if own is None else {"own": own[chosen].astype(np.float32)}
        return {f"{self._site}.{what}.{name}": value for name, value in arrays.items()}


def _victims(known: Known) -> int:
    """How many of a site's training subjects are attacked: the first so many."""
    return max(1, min(MASK_VICTIMS, len(known.people) // 2))


def _pictures(known: Known, what: What) -> np.ndarray:
    """(N, 1, H, W) images, or (N, 3, H, W) masks with one channel a structure; float32."""
    if what == "images":
        return known.images[:, None]
    return (known.masks[:, None] == np.array(LABELS)[:, None, None]).astype(np.float32)


def _decoder(method: CodedMethod, bench: Bench, what: What) -> Decode:
    def decode(codes: np.ndarray) -> np.ndarray:
        pictures = method.decode_pictures(bench, what, codes)
        assert pictures is not None
        return pictures

    return decode
