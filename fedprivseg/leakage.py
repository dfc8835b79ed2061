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
from safetensors.numpy import save_file

from fedprivseg.attacks import choose
from fedprivseg.attacks.attack import FULL, SMALL, Decode, Encode, Progress, Reconstruction, View
from fedprivseg.attacks.judge import Truth, judge, recognised
from fedprivseg.attacks.people import Crowd, Inference
from fedprivseg.compute import threads
from fedprivseg.config import Scenario
from fedprivseg.errors import FolderError, LedgerError, RequestError
from fedprivseg.findings import Budget, Inferred, Leakage, Measure, Redrawn
from fedprivseg.measures import LABELS, ssim
from fedprivseg.methods import resolve
from fedprivseg.methods.method import CodedMethod, Method, Sent, What
from fedprivseg.policy import ledger
from fedprivseg.records import Kind, Payload, digest
from fedprivseg.seeds import derive
from fedprivseg.site.bench import Bench, Known, station_folder
from fedprivseg.site.station import Station

MOST_AUXILIARY = 240
"""Pictures that an adversary holds at most, spread evenly over what other sites have."""

MASK_VICTIMS = 3
"""Most training subjects whose mask codes are attacked, and half of them at most: pairs come from the others. (Mask codes of
test subjects are never sent.)"""

_KINDS: Mapping[What, Kind] = {"images": Kind.IMAGE_CODE, "masks": Kind.MASK_CODE}


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
    drawers, tellers = choose(attacks)
    victims = list(sites) or (sorted(names) if budget == "full" else sorted(names)[:1])
    method, start = resolve(scenario.method), time.perf_counter()
    benches = {
        name: Bench(Station.read(station_folder(run, name) / "station.json"), scenario) for name in sorted(names)
    }
    redrawn: list[Redrawn] = []
    inferred: list[Inferred] = []
    left_out: list[str] = []
    pictures: dict[str, np.ndarray] = {}
    with threads(scenario.resources.cpus):
        for site in victims:
            battery = _Battery(run, scenario, method, benches, site, budget, progress)
            for what in _KINDS:
                found, lacking, shown = battery.attack(what, drawers)
                redrawn += found
                left_out += lacking
                pictures |= shown
            told, lacking = battery.infer(tellers)
            inferred += told
            left_out += lacking
    result = Leakage(
        scenario_sha256=scenario.sha256,
        method=method.name,
        variant=method.variant,
        protections=tuple(config.name for config in scenario.protections),
        budget=budget,
        sites=tuple(victims),
        auxiliary="training slices of the other sites",
        redrawn=tuple(redrawn),
        inferred=tuple(inferred),
        left_out=tuple(dict.fromkeys(left_out)),
        seconds=time.perf_counter() - start,
    )
    (run / "attacks.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    if pictures and scenario.report.images:
        save_file({name: np.ascontiguousarray(value) for name, value in pictures.items()}, run / "attacks.safetensors")
    return result


class _Battery:
    """All attacks on one site."""

    def __init__(
        self,
        run: Path,
        scenario: Scenario,
        method: Method,
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
        if not isinstance(self._method, CodedMethod):
            return [], [f"attacks on {what}: {self._method.title} releases no codes"] if attacks else [], {}
        method = self._method
        victims = next((sent for sent in method.sends if sent.what == what), None)
        pairs = next((sent for sent in method.sends if sent.what == what and sent.side == "train"), None)
        if victims is None:
            return [], [f"attacks on {what}: {method.title} releases no codes of them"], {}
        known = self._bench.known(victims.side)
        codes = self._released(victims, len(known.images))
        chosen = slice(None) if victims.side == "test" else known.subjects < _victims(known)
        view = View(
            codes=codes[chosen].astype(np.float32),
            shape=(1 if what == "images" else len(LABELS), *known.images.shape[1:]),
            effort=self._effort,
            seed=derive(self._scenario.seed, "attacks", self._site, what),
            auxiliary=self._auxiliary(what),
            query=self._query(method, what),
            pairs=None if pairs is None else self._pairs(what, pairs, victims),
            foreign=self._foreign(method, what, codes[:1]),
            architecture=lambda: method.architecture(what),
            device=self._bench.device,
            progress=self._progress,
        )
        truth = Truth(_pictures(known, what)[chosen], known.subjects[chosen], known.masks[chosen])
        own = method.decode_pictures(self._bench, what, self._bench.opened(_KINDS[what], codes[chosen]))
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

    def infer(self, attacks: Sequence[type[Inference]]) -> tuple[list[Inferred], list[str]]:
        """(what each attack on people can tell, why some could not be run)."""
        if not attacks:
            return [], []
        train, test = self._bench.known("train"), self._bench.known("test")
        sides = (train, test) if len(test.images) else (train,)
        people = [person for side in sides for person in side.people]
        crowd = Crowd(
            images=np.concatenate([side.images for side in sides]),
            masks=np.concatenate([side.masks for side in sides]),
            subjects=np.concatenate([train.subjects, test.subjects + len(train.people)][: len(sides)]),
            phases=np.concatenate([side.phases for side in sides]),
            places=np.concatenate([side.places for side in sides]),
            member=np.concatenate([np.full(len(side.images), side is train) for side in sides]),
            attributes={
                "disease": tuple(person.pathology for person in people),
                "sex": tuple(person.sex for person in people),
            },
            codes=self._codes_of(sides),
            predict=lambda images: self._method.predict(self._bench, self._run / "server", images),
            elsewhere=self._elsewhere(),
            effort=self._effort,
            seed=derive(self._scenario.seed, "attacks", self._site, "people"),
            device=self._bench.device,
            progress=self._progress,
        )
        found: list[Inferred] = []
        lacking: list[str] = []
        for kind in attacks:
            attack = kind()
            if attack.needs_codes and crowd.codes is None:
                lacking.append(f"{attack.title}: {self._method.title} releases nothing of single patients")
                continue
            told = attack.infer(crowd)
            if not told:
                lacking.append(f"{attack.title}: too few patients, or nothing known of them, at {self._site}")
            found += [
                Inferred(
                    attack=attack.name,
                    title=attack.title,
                    paper=attack.paper,
                    site=self._site,
                    knows=attack.knows,
                    **asdict(one),
                )
                for one in told
            ]
        return found, lacking

    def _codes_of(self, sides: Sequence[Known]) -> np.ndarray | None:
        """The released image codes of the slices of these sides, in their order; None if there are none of one."""
        if not isinstance(self._method, CodedMethod):
            return None
        parts = []
        for name, side in zip(("train", "test"), sides, strict=False):
            sent = next((s for s in self._method.sends if s.what == "images" and s.side == name), None)
            if sent is None:
                return None
            parts.append(self._released(sent, len(side.images)))
        return np.concatenate(parts).astype(np.float32)

    def _elsewhere(self) -> tuple[np.ndarray, np.ndarray]:
        sides = [other.known("train") for other in self._others]
        images, masks = (np.concatenate([getattr(side, name) for side in sides]) for name in ("images", "masks"))
        return images, masks

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

    def _query(self, method: CodedMethod, what: What) -> Encode:
        def query(pictures: np.ndarray) -> np.ndarray:
            self._queries += 1
            codes = method.encode_pictures(self._bench, what, pictures)
            return self._bench.shield.apply(_KINDS[what], codes, ("query", self._queries))[0].astype(np.float32)

        return query

    def _pairs(self, what: What, sent: Sent, victims: Sent) -> tuple[np.ndarray, np.ndarray] | None:
        known = self._bench.known(sent.side)
        codes = self._released(sent, len(known.images)).astype(np.float32)
        others = slice(None) if victims.side != sent.side else known.subjects >= _victims(known)
        return (_pictures(known, what)[others], codes[others]) if len(codes[others]) else None

    def _foreign(self, method: CodedMethod, what: What, sample: np.ndarray) -> Mapping[str, Decode] | None:
        found: dict[str, Decode] = {}
        for other in self._others:
            if method.decode_pictures(other, what, sample) is not None:
                found[other.name] = _decoder(method, other, what)
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
