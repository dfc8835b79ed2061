"""Coded segmentation with refinement at the sites, over fake sites: what is asked, what leaves, and what comes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeFederation, FakeSite, blocks
from pydantic import ValidationError

from fedprivseg.core.config import MethodConfig
from fedprivseg.core.kinds import STATUS
from fedprivseg.core.records import Order
from fedprivseg.core.task import Scope
from fedprivseg.methods import resolve
from fedprivseg.methods.coded_encoders import encode_at
from fedprivseg.methods.coded_mapping import answer, kept_mapping
from fedprivseg.methods.coded_parameters import PrivacySFParameters
from fedprivseg.methods.coded_site import _view

BRIEF = {
    "image_steps": 2,
    "mask_steps": 2,
    "mapping_steps": 2,
    "batch": 4,
    "views": 3,
    "test_views": 2,
    "shard_slices": 8,
    "refinement_steps": 3,
    "refinement_views": 2,
}


def _method(variant="improved", **parameters):
    return resolve(MethodConfig(name="privacy-sf", variant=variant, parameters={**BRIEF, **parameters}))


def _sites(folder):
    """Two sites, one of which has fewer slices, so that its answers end earlier."""
    return [FakeSite(f"centre{number}", blocks(12 - 3 * number, seed=number), folder) for number in range(2)]


def _run(method, folder):
    federation = FakeFederation(method, _sites(folder / "sites"), folder / "server")
    measured = method.conduct(federation)
    return federation, measured


@pytest.mark.parametrize("variant", ["improved", "paper"])
def test_codes_that_leave_are_the_same_as_without_and_else_only_a_status_does(tmp_path, variant):
    with_it, _ = _run(_method(variant), tmp_path / "with")
    without, _ = _run(_method(variant, refinement_steps=0), tmp_path / "without")
    known = [(action, site, payload.encode()) for action, site, payload in without.got if action != "measure"]
    told = [(action, site, payload) for action, site, payload in with_it.got if action != "measure"]
    further = [each for each in told if (each[0], each[1], each[2].encode()) not in known]
    assert len(told) == len(known) + len(further)
    assert {action for action, *_ in further} == {"keep_answers", "fit_refinement"}
    assert {payload.kind for *_, payload in further} == {STATUS}
    assert {action for action, *_ in without.asked}.isdisjoint({"keep_answers", "fit_refinement"})


def test_a_site_has_an_answer_to_every_view_that_it_refines_with_in_their_order(tmp_path):
    method = _method()
    federation, _ = _run(method, tmp_path)
    p, mapping = method.parameters, kept_mapping(method.parameters, federation.task, federation.models)
    for name, site in federation.all.items():
        sent = -(-len(site.training().images) // 8) * 2
        pictures = np.concatenate([_view(p, site, number)[0] for number in range(sent)])
        count = sum(site.vault.has(f"answers-{number:05d}") for number in range(9))
        kept = np.concatenate([site.vault.load(f"answers-{number:05d}")["codes"] for number in range(count)])
        assert len(kept) == 2 * len(site.training().images)
        expected = answer(p, mapping, name, encode_at(p, site, "images", pictures[:, None]), "cpu")
        np.testing.assert_allclose(kept.astype(np.float32), expected.astype(np.float32), atol=0.02)


def test_what_is_measured_is_what_is_predicted_and_another_attempt_finds_it_again(tmp_path):
    method = _method()
    first, _ = _run(method, tmp_path)
    again, _ = _run(method, tmp_path)
    plain, _ = _run(_method(refinement_steps=0), tmp_path / "plain")
    for name, site in first.all.items():
        (scores,) = site.seen
        np.testing.assert_allclose(method.predict(site, first.models, site.testing()), scores, atol=2e-3)
        np.testing.assert_array_equal(again.all[name].seen[0], scores)
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)
        assert (plain.all[name].seen[0] != scores).any()


def test_the_control_asks_for_no_answer_and_does_not_look_at_one(tmp_path):
    method = _method(refinement_input="none")
    federation, _ = _run(method, tmp_path)
    assert "keep_answers" not in {action for action, *_ in federation.asked}
    for site in federation.all.values():
        for number in range(9):
            if site.vault.has(f"scores-{number:05d}"):
                scores = site.vault.load(f"scores-{number:05d}")["scores"]
                site.vault.save(f"scores-{number:05d}", {"scores": scores[::-1].copy()})
        method.actions["measure"](method, site, None)
        np.testing.assert_array_equal(*site.seen)


def test_a_site_that_kept_fewer_answers_than_it_was_sent_is_found_out(tmp_path):
    method = _method()
    federation, _ = _run(method, tmp_path)
    reply = next(payload for action, _, payload in federation.got if action == "keep_answers")
    declared = method.expected(Order("keep_answers"), Scope(federation.grid, federation.task))
    short = replace(reply, arrays={"slices": reply.arrays["slices"] - 1})
    assert declared.check(reply, federation.facts("centre0")) is None
    assert declared.check(short, federation.facts("centre0")) == "it says that it decoded 7 codes of 8"


def test_answers_that_the_server_cannot_have_are_refused():
    with pytest.raises(ValidationError, match="set refinement_views to at most 1"):
        PrivacySFParameters(refinement_steps=1, refinement_views=2)
