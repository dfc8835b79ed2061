"""The attacks that reconstruct images and masks from a site's codes: of training slices, of test slices, and from the answers.

Codes come in an order that no adversary knows (`methods.release_order`). All are attacked as they came, all streams of one kind
at once, so that an attack that trains a network trains it once; the truth is put into the same order to judge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import final

import numpy as np
from scipy.optimize import linear_sum_assignment

from fedprivseg.attacks.base import Reconstruction, View, pooled
from fedprivseg.attacks.metrics import Truth
from fedprivseg.core.method_card import Sent, What
from fedprivseg.core.models import ModelStore
from fedprivseg.methods.method import CodedMethod
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.ground_truth import GroundTruth, ground_truth
from fedprivseg.study.leakage.attack_session import CODE_KIND, AttackSession, Side, pictures_of
from fedprivseg.study.leakage.partial import AttackTask, PartialResult, impossible

VICTIMS = 3
"""Most training subjects whose codes are attacked, and half of them at most: pairs that an adversary knows are of the
others."""

SIDE = 24
"""Cells a side on which reconstructions of several views are compared to find those of one slice."""


def reconstruct_from_codes(
    session: AttackSession, what: What, attacks: Sequence[type[Reconstruction]]
) -> list[AttackTask]:
    """Every attack on all of the site's codes of images or of masks."""
    method = session.method
    if not isinstance(method, CodedMethod):
        return impossible(session.victim, what, f"attacks on codes of {what}: {method.title} releases no codes")
    if not any(sent.what == what for sent in method.sends):
        return impossible(session.victim, what, f"attacks on codes of {what}: {method.title} releases none")
    target, of = cache(lambda: _target(session, what, method)), f"{session.victim}.{what}"
    return [AttackTask(f"{of}.{kind.name}", of, partial(_attacked, session, what, target, kind())) for kind in attacks]


@final
@dataclass(frozen=True)
class _Stream:
    """Codes of some of the site's slices, and what they were made of.

    Attributes:
        name: of the stream.
        side: of whose slices they are.
        codes: (views * N, C, h, w) float32, view by view; the slices of each view in an order of its own.
        views: how many views of each slice there are, that everybody knows.
        truth: of the first view, as it came.
        own: what the site's own decoder reconstructs from the first view; None if it has none.
    """

    name: str
    side: Side
    codes: np.ndarray
    views: int
    truth: Truth
    own: np.ndarray | None

    @property
    def size(self) -> int:
        return len(self.truth.pictures)


@final
@dataclass(frozen=True)
class _Target:
    """The site's codes of images or of masks. view: of an adversary that knows everything, without codes."""

    method: CodedMethod
    view: View
    streams: tuple[_Stream, ...]


def _attacked(
    session: AttackSession, what: What, prepared: Callable[[], _Target], attack: Reconstruction
) -> PartialResult:
    """What `attack` reconstructs of each stream, in each of its settings; from several views of a slice also their average."""
    target = prepared()
    parts = [one.codes if attack.every_view else one.codes[: one.size] for one in target.streams]
    view = replace(target.view, codes=np.concatenate(parts), query=session.query(what))
    if missing := view.lacks(attack.knows):
        return PartialResult(left_out=(f"{attack.title} on {what}: there is no {', '.join(missing)} in this method",))
    start = time.perf_counter()
    made = attack.carry_out(view)
    cuts = np.cumsum([len(part) for part in parts])[:-1]
    found: list[tuple[_Stream, str, np.ndarray]] = []
    for setting, pictures in made.items():
        for stream, own in zip(target.streams, np.split(pictures, cuts), strict=True):
            found.append((stream, setting, own[: stream.size]))
            if len(own) > stream.size:
                name = f"{setting}, {stream.views} views".removeprefix(", ")
                found.append((stream, name, _of_all_views(target.method, own, stream.views)))
    seconds = (time.perf_counter() - start) / len(found)
    results = [
        session.result(attack, setting, what, one.side, pictures, one.truth, seconds, own=one.own, stream=one.name)
        for one, setting, pictures in found
    ]
    worst = max(range(len(results)), key=lambda place: results[place].leakage)
    stream, _, pictures = found[worst]
    shown = session.examples(what, stream.truth, pictures, stream.own)
    return PartialResult(reconstructions=tuple(results), shown=shown)


def _of_all_views(method: CodedMethod, pictures: np.ndarray, views: int) -> np.ndarray:
    """The mean of what was reconstructed from all views of a slice, (N, K, H, W), in the order of the first view.

    Which of the reconstructions (views * N, K, H, W) are of one slice the adversary does not know. It turns all of them upright
    and gives each of the first view the one of every other view that is most like it, no two the same (an assignment problem).
    """
    first, *others = np.split(pictures, views)
    total, reach = method.upright(first, 0)
    weight = np.broadcast_to(reach, total.shape).copy()
    rows = _compared(total)
    for index, part in enumerate(others, start=1):
        back, reach = method.upright(part, index)
        _, match = linear_sum_assignment(-rows @ _compared(back).T)
        total, weight = total + back[match], weight + reach
    return np.clip(total / np.maximum(weight, 1e-6), 0, 1).astype(np.float32)


def _compared(pictures: np.ndarray) -> np.ndarray:
    rows = pooled(pictures, SIDE)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _target(session: AttackSession, what: What, method: CodedMethod) -> _Target:
    site, task = session.site, session.scenario.task
    sends = {sent.side: sent for sent in method.sends if sent.what == what}
    streams = []
    pairs = None
    if "test" in sends and len(site.testing()):
        streams.append(_test(session, what, method, sends["test"]))
    if "train" in sends:
        stream, pairs = _training(session, what, method, sends["train"])
        streams.append(stream)
    if what == "masks" and (answers := _answers(session, method)) is not None:
        streams.append(answers)
    able = [other for other in session.others if method.decode_pictures(other, what, streams[0].codes[:1]) is not None]
    view = View(
        codes=streams[0].codes,
        shape=(1 if what == "images" else len(task.structures), *site.training().images.shape[1:]),
        what=what,
        effort=session.effort,
        seed=session.seed(what),
        auxiliary=session.auxiliary(what),
        pairs=pairs,
        foreign={other.name: partial(_decoded, method, other, what) for other in able} or None,
        architecture=lambda: method.architecture(what, task),
        device=site.device,
        progress=session.progress,
    )
    return _Target(method, view, tuple(streams))


def _test(session: AttackSession, what: What, method: CodedMethod, sent: Sent) -> _Stream:
    """All test slices, in all views."""
    views = method.views(sent)
    known = _chosen(ground_truth(session.site, "test"), session.order(sent))
    return _stream(session, method, "test", "test", session.codes(sent, views), views, known, what)


def _training(
    session: AttackSession, what: What, method: CodedMethod, sent: Sent
) -> tuple[_Stream, tuple[np.ndarray, np.ndarray] | None]:
    """The first view of the slices of the first training subjects, and pairs of those of the others."""
    known = _chosen(ground_truth(session.site, "train"), session.order(sent))
    images, masks = method.first_view(session.site, known.images, known.masks)
    known = replace(known, images=images, masks=masks)
    codes = session.codes(sent)
    victims = known.subjects < max(1, min(VICTIMS, len(known.people) // 2))
    rest = _chosen(known, ~victims)
    pairs = (pictures_of(rest, what, session.scenario.task), codes[~victims]) if len(rest.images) else None
    return _stream(session, method, "train", "train", codes[victims], 1, _chosen(known, victims), what), pairs


def _answers(session: AttackSession, method: CodedMethod) -> _Stream | None:
    """What the server answers test codes with, made again from what it keeps; None if the method has no answers, or nobody
    asks."""
    sent = next((each for each in method.sends if (each.what, each.side) == ("images", "test")), None)
    if sent is None or not len(session.site.testing()):
        return None
    views = method.views(sent)
    codes = method.answers(session.site, ModelStore(session.run / "server"), session.codes(sent, views))
    if codes is None:
        return None
    known = _chosen(ground_truth(session.site, "test"), session.order(sent))
    return _stream(session, method, "answers", "test", codes.astype(np.float32), views, known, "masks")


def _stream(
    session: AttackSession,
    method: CodedMethod,
    name: str,
    side: Side,
    codes: np.ndarray,
    views: int,
    known: GroundTruth,
    what: What,
) -> _Stream:
    site, task = session.site, session.scenario.task
    truth = Truth(pictures_of(known, what, task), known.subjects, known.masks, what, task.region)
    own = method.decode_pictures(site, what, site.opened(CODE_KIND[what], codes[: len(known.images)]))
    return _Stream(name, side, codes, views, truth, own)


def _chosen(known: GroundTruth, chosen: np.ndarray) -> GroundTruth:
    """Those of the slices, in this order."""
    arrays = {name: getattr(known, name)[chosen] for name in ("images", "masks", "subjects", "phases", "places")}
    return replace(known, **arrays)


def _decoded(method: CodedMethod, site: SiteRuntime, what: What, codes: np.ndarray) -> np.ndarray:
    pictures = method.decode_pictures(site, what, codes)
    assert pictures is not None, "asked of sites with a decoder alone"
    return pictures
