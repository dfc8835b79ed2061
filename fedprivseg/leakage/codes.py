"""The attacks that redraw pictures from a site's released codes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedprivseg.attacks.attack import Decode, Encode, Reconstruction, View
from fedprivseg.attacks.judge import Truth
from fedprivseg.leakage.scene import KINDS, Found, Scene, pictures_of
from fedprivseg.measures import LABELS
from fedprivseg.methods.method import CodedMethod, What
from fedprivseg.site.bench import Bench, Known

MASK_VICTIMS = 3
"""Most training subjects whose mask codes are attacked, and half of them at most: pairs come from the others. (Mask codes of
test subjects are never sent.)"""


def attack_codes(scene: Scene, what: What, attacks: Sequence[type[Reconstruction]]) -> Found:
    """Every attack on the site's codes of one kind of picture: of its test subjects where such codes were sent."""
    method, bench = scene.method, scene.bench
    if not isinstance(method, CodedMethod):
        return [], [f"attacks on codes of {what}: {method.title} releases no codes"], {}
    streams = [sent for sent in method.sends if sent.what == what]
    if not streams:
        return [], [f"attacks on codes of {what}: {method.title} releases none"], {}
    victims, trained = streams[0], next((sent for sent in streams if sent.side == "train"), None)
    known = bench.known(victims.side)
    views, size = method.views(victims), len(known.images)
    codes = scene.released.rows(victims.action, views * size).astype(np.float32)
    chosen = known.subjects >= 0 if victims.side == "test" else known.subjects < _victims(known)
    pairs = None
    if trained is not None:
        home = bench.known("train")
        rest = home.subjects >= (0 if victims.side == "test" else _victims(home))
        if rest.any():
            sent = scene.released.rows(trained.action, len(home.images)).astype(np.float32)
            pairs = pictures_of(home, what)[rest], sent[rest]
    view = View(
        codes=codes[np.tile(chosen, views)],
        shape=(1 if what == "images" else len(LABELS), *known.images.shape[1:]),
        effort=scene.effort,
        seed=scene.seed(what),
        auxiliary=scene.auxiliary(what),
        query=_query(method, bench, what),
        pairs=pairs,
        foreign=_foreign(method, scene.others, what, codes[:1]),
        architecture=lambda: method.architecture(what),
        device=bench.device,
        progress=scene.progress,
    )
    truth = Truth(pictures_of(known, what)[chosen], known.subjects[chosen], known.masks[chosen])
    first = replace(view, codes=codes[:size][chosen])
    own = method.decode_pictures(bench, what, bench.opened(KINDS[what], first.codes))
    found, lacking = [], []
    best: tuple[float, np.ndarray] | None = None
    for kind in attacks:
        attack = kind()
        if missing := view.lacks(attack.knows):
            lacking.append(f"{attack.title} on {what}: there is no {', '.join(missing)} in this method")
            continue
        start = time.perf_counter()
        drawings = attack.carry_out(view if attack.every_view else first)
        if attack.every_view and views > 1:
            drawings = _both(drawings, method, views)
        seconds = (time.perf_counter() - start) / len(drawings)
        for setting, drawn in drawings.items():
            names = {"attack": attack.name, "title": attack.title, "paper": attack.paper, "knows": attack.in_words()}
            found.append(
                scene.redrawn({**names, "setting": setting}, what, victims.side, drawn, truth, seconds, own=own)
            )
            if best is None or found[-1].leakage > best[0]:
                best = found[-1].leakage, drawn
    return found, lacking, {} if best is None else scene.examples(what, truth, best[1], own)


def _both(drawings: Mapping[str, np.ndarray], method: CodedMethod, views: int) -> dict[str, np.ndarray]:
    """What an attack drew of the first view, and of all `views` laid over each other."""
    found = {}
    for setting, drawn in drawings.items():
        found[setting] = drawn[: len(drawn) // views]
        found[f"{setting}, {views} views".removeprefix(", ")] = method.overlaid(drawn, views)
    return found


def _victims(known: Known) -> int:
    """How many of a site's training subjects are attacked: the first so many."""
    return max(1, min(MASK_VICTIMS, len(known.people) // 2))


def _query(method: CodedMethod, bench: Bench, what: What) -> Encode:
    """The site's encoder with its protections; every call is a payload of its own."""
    calls = iter(range(10**9))

    def query(pictures: np.ndarray) -> np.ndarray:
        codes = method.encode_pictures(bench, what, pictures)
        return bench.shield.apply(KINDS[what], codes, ("query", next(calls)))[0].astype(np.float32)

    return query


def _foreign(
    method: CodedMethod, others: Sequence[Bench], what: What, sample: np.ndarray
) -> Mapping[str, Decode] | None:
    """The other sites' own decoders, where they have one."""

    def of(bench: Bench) -> Decode:
        def decode(codes: np.ndarray) -> np.ndarray:
            pictures = method.decode_pictures(bench, what, codes)
            assert pictures is not None
            return pictures

        return decode

    able = [bench for bench in others if method.decode_pictures(bench, what, sample) is not None]
    return {bench.name: of(bench) for bench in able} or None
