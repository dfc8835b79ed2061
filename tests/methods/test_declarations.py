"""What every registered method declares of its answers: all of them, closed, and the same for server and site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeFederation, FakeSite, blocks

from fedprivseg.core.config import MethodConfig
from fedprivseg.core.expected import LONGEST, MOST_WEIGHT
from fedprivseg.core.kinds import METRIC
from fedprivseg.core.records import Grid, Order
from fedprivseg.core.task import Scope, default_task
from fedprivseg.governance.policy.declaration import departure
from fedprivseg.methods import METHODS, resolve
from fedprivseg.methods.training import NET, TrainingParameters, outline, travelling
from fedprivseg.nets.baseline import build_net, weights_of

SCOPE = Scope(Grid(32, 32, 2.0), default_task())
CODE = "C1D5H7"
BRIEF = {"rounds": 1, "local_steps": 1, "steps": 1, "curve_points": 1, "test_views": 1, "batch": 4, "shard_slices": 8}
BRIEF |= {"image_steps": 1, "mask_steps": 1, "mapping_steps": 1, "views": 2}
BRIEF |= {"start_steps": 1, "public_slices": 4, "distil_steps": 1, "averaging": {"rounds": 1, "local_steps": 1}}
SECURE = {"summation": "secure"}
PRIVATE = {"dp": {"epsilon": 8.0}}


def brief(kind, variant="", **parameters):
    known = {name: value for name, value in BRIEF.items() if name in kind.parameters_type.model_fields}
    return resolve(MethodConfig(name=kind.name, variant=variant, parameters={**known, **parameters}))


def cases():
    for kind in METHODS:
        for variant in kind.variants:
            yield pytest.param((kind, variant, {}), id=f"{kind.name}-{variant}")
    masked = next(kind for kind in METHODS if "summation" in kind.parameters_type.model_fields)
    yield pytest.param((masked, "", SECURE), id=f"{masked.name}-secure")
    yield pytest.param((masked, "", PRIVATE), id=f"{masked.name}-dp")


@pytest.fixture(scope="module", params=cases())
def answers(request, tmp_path_factory):
    """The method, and of each action that a whole run orders one order, its declaration and its answer."""
    kind, variant, parameters = request.param
    method = brief(kind, variant, **parameters)
    folder = tmp_path_factory.mktemp("declared")
    sites = [FakeSite(f"centre{i}", blocks(8, seed=i), folder / "sites") for i in range(3)]
    federation = FakeFederation(method, sites, folder / "server")
    asked, ask = {}, federation.ask

    def heard(action, expected, *, number=0, answers=None, sites=None):
        replies = ask(action, expected, number=number, answers=answers, sites=sites)
        for site, payload in replies.items():
            asked[action] = Order(action, number, answers[site] if answers else None), expected, payload
        return replies

    federation.ask = heard
    method.conduct(federation)
    return method, asked


def test_every_action_declares_its_answer(answers):
    method, asked = answers
    assert set(method.declares) == set(method.actions)
    assert asked
    for order, expected, payload in asked.values():
        assert method.expected(order, SCOPE) == expected, "site and server read one declaration"
        assert expected.kind in method.declared
        assert departure(payload, expected, order.number) is None
    assert method.expected(Order("send_everything"), SCOPE) is None


def test_nothing_that_could_be_a_word_is_free(answers):
    _, asked = answers
    for order, expected, payload in asked.values():
        first = min(payload.arrays)
        renamed = {
            CODE: payload.arrays[first],
            **{name: value for name, value in payload.arrays.items() if name != first},
        }
        for sent, rule in [
            (replace(payload, arrays=renamed), "names"),
            (replace(payload, arrays={**payload.arrays, CODE: np.zeros(1)}), "names"),
            (replace(payload, history=(*payload.history, CODE)), "history"),
            (replace(payload, history=(CODE,)), "history"),
            (replace(payload, purpose=CODE), "purpose"),
            (replace(payload, shard=payload.shard + 1), "shard"),
            (replace(payload, shards=10**9), "shards"),
            (replace(payload, arrays={**payload.arrays, first: payload.arrays[first].astype("int16")}), "dtype"),
            (replace(payload, arrays={**payload.arrays, first: payload.arrays[first][..., None]}), "shape"),
        ]:
            decision = departure(sent, expected, order.number)
            assert decision is not None, (order.action, rule)
            assert decision.rule == f"declaration.{rule}"
            assert CODE not in decision.reason


def test_only_lengths_that_count_slices_or_chosen_values_are_free(answers):
    _, asked = answers
    for order, expected, _ in asked.values():
        free = {name: form for name, form in expected.arrays.items() if None in form.shape}
        assert all(form.shape.count(None) == 1 and form.shape[0] is None for form in free.values())
        counts = expected.views or expected.kind == METRIC
        assert counts or all(form.longest < LONGEST for form in free.values()), order.action


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("net", ["unet", "unet-wide", "basic-unet", "nnunet"])
def test_an_outline_has_the_arrays_of_the_net(net, norm):
    forms = travelling(outline(TrainingParameters(net=net, norm=norm), SCOPE))
    real = weights_of(build_net(net, norm, 32, 3, 0, "weights"))
    assert {name: (form.dtype, form.shape) for name, form in forms.items()} == {
        NET + name: ("float32", value.shape) for name, value in real.items()
    }
    assert all(form.least == (0 if name.endswith("running_var") else -MOST_WEIGHT) for name, form in forms.items())
    assert all(form.most == MOST_WEIGHT for form in forms.values())
    assert all(value.dtype == np.float32 for value in real.values())
