"""Methods that train in rounds: what must be equal is equal, bit for bit; golden numbers with their derivation."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from fakes import FakeFederation, FakeSite, blocks
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flowers
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from flwr.supercore.task_identity import TaskIdentity

from fedprivseg.core.config import MethodConfig
from fedprivseg.core.errors import QuorumError, ScenarioError
from fedprivseg.core.kinds import WEIGHTS
from fedprivseg.core.records import Budget, CrossSite, CurvePoint
from fedprivseg.methods import resolve
from fedprivseg.methods.aggregation import Update
from fedprivseg.methods.byzantine import Nearest, NearMedian
from fedprivseg.methods.central_dp import NoisyMean
from fedprivseg.methods.feddyn import Dynamic, Regulariser
from fedprivseg.methods.fednova import Normalised, accumulated
from fedprivseg.methods.flower_strategy import ANY_NUMBER, FlowerStrategy, flower
from fedprivseg.methods.local_only import ALONE
from fedprivseg.methods.proximal_term import proximal_term
from fedprivseg.methods.qfedavg import Fair, accumulated_rate
from fedprivseg.methods.round_state import load_state, save_state
from fedprivseg.methods.rounds import chosen_sites
from fedprivseg.methods.scaffold import ControlVariates, Drift
from fedprivseg.methods.selective import SelectiveParameters, select
from fedprivseg.methods.training import MODEL, NET, build, marks, planned, under
from fedprivseg.nets.baseline import norm_names, weights_of
from fedprivseg.nets.local_training import Work, train_round
from fedprivseg.nets.segmentation import segmentation_loss

BRIEF = {"rounds": 3, "local_steps": 2, "curve_points": 0, "test_views": 1, "batch": 4}


@pytest.fixture(autouse=True)
def _task(monkeypatch):
    """A task of Flower's, without which it makes no message; other tests may not have begun one."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def method(name="fedavg", **parameters):
    return resolve(MethodConfig(name=name, parameters={**BRIEF, **parameters}))


def run(folder, name="fedavg", count=3, slices=None, **parameters):
    """Conduct `name` over `count` toy sites; returns the federation and the final arrays, None if it keeps none."""
    each = slices or [blocks(8 + 4 * i, seed=i) for i in range(count)]
    sites = [FakeSite(f"centre{i}", own, folder / "sites") for i, own in enumerate(each)]
    federation = FakeFederation(method(name, **parameters), sites, folder / "server")
    federation.method.conduct(federation)
    return federation, final(federation)


def final(federation):
    """The arrays of the network that the server kept, None if it kept none."""
    kept = federation.load_model(MODEL)
    return None if kept is None else under(kept[0], NET)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def update(values, extra=None, weight=1.0, steps=1, loss=1.0):
    arrays = {"w": np.array(values, np.float32)}
    return Update(arrays, {"w": np.array(extra, np.float32)} if extra is not None else {}, weight, steps, loss)


# --- what must be equal -----------------------------------------------------------------------------------------------


def test_with_one_site_averaging_is_local_training(tmp_path):
    _, averaged = run(tmp_path / "average", count=1)
    federation, _ = run(tmp_path / "alone", "local-only", count=1)
    alone = load_state(federation.all["centre0"], ALONE, BRIEF["rounds"] + 1)
    assert_equal(averaged, {name: value for name, value in alone.items() if name not in ("loss", "round")})


def test_fedprox_without_its_term_is_fedavg(tmp_path):
    assert_equal(run(tmp_path / "prox", "fedprox", mu=0.0)[1], run(tmp_path / "avg")[1])


def test_fedprox_with_its_term_is_not(tmp_path):
    prox, average = run(tmp_path / "prox", "fedprox", mu=10.0)[1], run(tmp_path / "avg")[1]
    start = weights_of(build(method().parameters, FakeSite("x", blocks(), tmp_path)))
    far, near = (sum(np.square(w[n] - start[n]).sum() for n in start if "running" not in n) for w in (average, prox))
    assert near < far, "a pull towards the received weights keeps them nearer"


def test_fedavgm_without_momentum_and_fednova_with_equal_steps_are_fedavg(tmp_path):
    average = run(tmp_path / "avg", rounds=1)[1]
    for name, own in (("fedavgm", {"server_momentum": 0.0}), ("fednova", {})):
        other = run(tmp_path / name, name, rounds=1, **own)[1]
        for key in average:
            np.testing.assert_allclose(other[key], average[key], rtol=1e-5, atol=1e-6, err_msg=f"{name} {key}")


def test_equal_data_and_one_plain_step_is_a_step_on_pooled_data(tmp_path):
    # Every site has the same batch, so each takes the same step, and so does whoever pools them: the loss is a mean.
    own = blocks(4)
    plain = {"rounds": 1, "local_steps": 1, "momentum": 0.0, "decay": 0.0, "augmentation": "none", "half": False}
    _, averaged = run(tmp_path / "average", slices=[own] * 3, **plain)
    kept = {k: v for k, v in plain.items() if k not in ("rounds", "local_steps")}
    pooled = resolve(MethodConfig(name="pooled", parameters={"steps": 1, **kept}))
    sites = [FakeSite(f"centre{i}", own, tmp_path / "pooled") for i in range(3)]
    net = build(pooled.parameters, sites[0])
    train_round(
        net,
        np.concatenate([own.images] * 3),
        np.concatenate([own.masks] * 3),
        planned(pooled.parameters.model_copy(update={"batch": 12}), 0, 1, 1),
        0,
        ("server",),
    )
    for name, value in weights_of(net).items():
        if "running" not in name:  # a variance is divided by n - 1, which differs between 4 and 12 slices
            np.testing.assert_allclose(averaged[name], value, rtol=1e-4, atol=2e-5, err_msg=name)


def test_the_mean_is_flowers(tmp_path):
    draws = np.random.default_rng(0)
    updates = {f"centre{i}": update(draws.normal(size=50), weight=3.0 + i) for i in range(4)}
    done = flower().aggregate(1, {"w": np.zeros(50, np.float32)}, updates)
    records = [
        RecordDict({"a": ArrayRecord({"w": Array(u.arrays["w"])}), "m": MetricRecord({"n": u.weight})})
        for u in updates.values()
    ]
    oracle = aggregate_arrayrecords(records, "n")["w"].numpy()
    np.testing.assert_allclose(done["w"], oracle, atol=1e-6)  # Flower sums in the type given, here float32


def test_the_order_of_arrival_and_the_worlds_randomness_mean_nothing():
    random.seed(1)
    np.random.seed(1)
    world = random.getstate(), np.random.get_state()[1].copy()
    strategy = flower()
    strategy.aggregate(1, {"w": np.zeros(2, np.float32)}, {"a": update([1, 2]), "b": update([3, 4])})
    assert random.getstate() == world[0]
    assert (np.random.get_state()[1] == world[1]).all()


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    for name in ("scaffold", "fedadam", "feddyn", "fedbn", "ditto"):
        whole = run(tmp_path / name / "whole", name, rounds=4)[1]
        folder = tmp_path / name / "broken"
        sites = [FakeSite(f"centre{i}", blocks(8 + 4 * i, seed=i), folder / "sites") for i in range(3)]
        federation = FakeFederation(method(name, rounds=4), sites, folder / "server")
        asked = federation.ask

        def failing(action, expected, *, number=0, asked=asked, **more):
            replies = asked(action, expected, number=number, **more)
            if number == 3:  # the sites did round 3, and the server never heard of it
                raise KeyboardInterrupt
            return replies

        federation.ask = failing
        with pytest.raises(KeyboardInterrupt):
            federation.method.conduct(federation)
        again = FakeFederation(method(name, rounds=4), sites, folder / "server")
        again.method.conduct(again)
        assert {number for action, number, _ in again.asked if action == "train"} == {3, 4}
        assert_equal(whole, final(again))


# --- golden numbers ---------------------------------------------------------------------------------------------------


def test_fednova_by_hand():
    # x = 0; site a moved to 2 in 1 step, site b to 9 in 3 steps; weights 1 and 3, so p = 1/4 and 3/4; |a_i| = steps.
    # tau_eff = 1/4 * 1 + 3/4 * 3 = 2.5; change = 2.5 * (1/4 * 2/1 + 3/4 * 9/3) = 2.5 * 2.75 = 6.875.
    rule = Normalised(lambda number, steps: float(steps), frozenset())
    done = rule.aggregate(
        1, {"w": np.zeros(1, np.float32)}, {"a": update([2], steps=1), "b": update([9], weight=3, steps=3)}
    )
    np.testing.assert_allclose(done["w"], [6.875])


@pytest.mark.parametrize(
    ("momentum", "steps", "expected"),
    [
        (0.0, 5, 5.0),
        # Nesterov, constant rate: b = 1, then .5 * 1 + 1 = 1.5; steps 1 + .5 * 1 = 1.5 and 1 + .5 * 1.5 = 1.75.
        (0.5, 2, 3.25),
    ],
)
def test_accumulated_steps_by_hand(momentum, steps, expected):
    work = Work(first=0, steps=steps, total=10**9, rate=0.1, momentum=momentum)
    assert accumulated(work) == pytest.approx(expected, rel=1e-6)


def test_accumulated_steps_are_those_of_torch():
    # Oracle: torch's own SGD on a gradient of 1 moves a weight by rate * |a|.
    work = Work(first=3, steps=7, total=40, rate=0.2, momentum=0.9)
    weight = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=1.0, momentum=0.9, nesterov=True)
    for step in range(work.steps):
        optimiser.param_groups[0]["lr"] = work.rate_at(step)
        weight.grad = torch.ones(1)
        optimiser.step()
    assert accumulated(work) == pytest.approx(-float(weight.detach()) / work.rate_at(0), rel=1e-5)


def test_feddyn_by_hand():
    # alpha .5, m = 4 sites, two take part: w = 1, w_a = 3, w_b = 5. Sum of changes 2 + 4 = 6; h = 0 - .5 / 4 * 6 = -.75.
    # Mean 4; w <- 4 - (-.75) / .5 = 5.5. A running statistic is averaged alone: 4.
    rule = Dynamic(sites=4, alpha=0.5, statistics=frozenset({"s"}))
    arrays = {"w": np.ones(1, np.float32), "s": np.ones(1, np.float32)}
    updates = {
        name: Update({"w": np.float32([v]), "s": np.float32([v])}, {}, weight, 1, 0.0)
        for name, v, weight in (("a", 3, 1.0), ("b", 5, 9.0))
    }
    done = rule.aggregate(1, arrays, updates)
    np.testing.assert_allclose(done["w"], [5.5])
    np.testing.assert_allclose(done["s"], [4.0])
    again = Dynamic(sites=4, alpha=0.5, statistics=frozenset({"s"}))
    again.restore(rule.state())
    assert again.state().keys() == {"w"}


def test_feddyn_gradient_by_hand():
    # gradient 1, w = 2, w_received = 0.5, h = 0.25, alpha = 2: 1 + 2 * 1.5 - 0.25 = 3.75
    net = torch.nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.5)
    rule = Regulariser(net, 2.0, {"weight": np.float32([[0.25]])})
    net.weight.data.fill_(2.0)
    net.weight.grad = torch.ones(1, 1)
    rule(net)
    assert float(net.weight.grad) == pytest.approx(3.75)


def test_fedprox_gradient_by_hand():
    # mu = 0.1, w - w_received = 1.5, gradient 1: 1 + 0.1 * 1.5, the gradient of mu / 2 * 1.5 ** 2 (the norm squared)
    net = torch.nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.5)
    rule = proximal_term(net, 0.1)
    net.weight.data.fill_(2.0)
    net.weight.grad = torch.ones(1, 1)
    rule(net)
    assert float(net.weight.grad) == pytest.approx(1.15)


def test_scaffold_by_hand():
    # c = 1, two of four sites took part, their variates changed by 2 and 4: c <- 1 + 6 / 4 = 2.5; the weights' mean is 2.
    rule = ControlVariates(sites=4)
    rule.restore({"w": np.ones(1, np.float32)})
    done = rule.aggregate(1, {"w": np.zeros(1, np.float32)}, {"a": update([1], [2]), "b": update([3], [4])})
    np.testing.assert_allclose(done["w"], [2.0])
    np.testing.assert_allclose(rule.broadcast(2, done)["w"], [2.5])


def test_scaffolds_corrections_cancel(tmp_path):
    """Sites of 8, 12 and 16 slices: with the shares p_i of the model's average, sum of p_i (c - c_i) is 0 in every round."""
    for share in (1.0, 0.67):
        folder = tmp_path / str(share)
        federation, _ = run(folder, "scaffold", rounds=3, fraction=share)
        state = under(federation.load_model(MODEL)[0], "state/")
        shares = {p.arrays["numbers"][0] for action, _, p in federation.got if action == "train"}
        assert shares == {1.0}, "the model's average is plain too"
        kept = [load_state(site, "rule", 4) for site in federation.all.values()]
        assert any(np.abs(value).max() > 1e-6 for value in state.values())
        for name, c in state.items():
            left = sum(c - own.get(name, np.zeros_like(c)) for own in kept) / 3
            np.testing.assert_allclose(left, 0, atol=1e-5 * max(1.0, float(np.abs(c).max())), err_msg=name)


def test_scaffold_refuses_shares_that_its_variates_do_not_have():
    with pytest.raises(ScenarioError, match="weighting"):
        method("scaffold", weighting="slices")


def test_scaffolds_mean_gradient_is_option_ii_under_plain_sgd():
    # Algorithm 1, option II: c_i+ = c_i - c + (x - y) / (K * rate), with y after K steps of x <- x - rate * (g - c_i + c).
    own, server, rate, gradients = np.float32([[0.3]]), np.float32([[0.7]]), 0.1, [1.0, -2.0, 4.0]
    net = torch.nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(5.0)
    drift = Drift(net, {"weight": server}, {"weight": own})
    for gradient in gradients:
        net.weight.grad = torch.full((1, 1), gradient)
        drift(net)
        net.weight.data -= rate * net.weight.grad
    option_ii = own - server + (5.0 - net.weight.detach().numpy()) / (len(gradients) * rate)
    np.testing.assert_allclose(drift.mean()["weight"], option_ii, rtol=1e-5)
    np.testing.assert_allclose(drift.mean()["weight"], [[1.0]], rtol=1e-6)  # the mean of the gradients


def test_running_statistics_never_meet_a_servers_optimiser():
    # A server's momentum would step on a variance as on a weight: with a rate of 10 it would leave [1, 3] by far.
    strategy = flowers.FedAvgM(server_learning_rate=10.0, server_momentum=0.5, **ANY_NUMBER)
    updates = {
        name: Update({"w": np.float32([v]), "v": np.float32([v])}, {}, 1.0, 1, 0.0) for name, v in (("a", 1), ("b", 3))
    }
    done = FlowerStrategy(strategy, frozenset({"v"})).aggregate(
        1, {"w": np.zeros(1, np.float32), "v": np.ones(1, np.float32)}, updates
    )
    np.testing.assert_allclose(done["v"], [2.0])
    assert abs(float(done["w"][0])) > 3


def server(name, statistics=frozenset(), **parameters):
    """The server's half of `name`, for three sites."""
    return method(name, **parameters).aggregation(3, statistics, 0)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad", "fedavgm"])
def test_a_servers_moments_survive_an_interruption(name):
    def step(rule, number, arrays):
        return rule.aggregate(number, arrays, {"a": update([number, 2.0]), "b": update([3.0, -number])})

    whole, broken, resumed = server(name), server(name), server(name)
    one = step(whole, 1, {"w": np.zeros(2, np.float32)})
    step(broken, 1, {"w": np.zeros(2, np.float32)})
    resumed.restore({name: value.copy() for name, value in broken.state().items()})
    np.testing.assert_array_equal(step(whole, 2, one)["w"], step(resumed, 2, one)["w"])


def reddi(kind, weights, changes, eta, beta_1, beta_2, tau):
    """Algorithm 2 of Reddi et al. for one weight, with the plain loop over rounds: the weight after each."""
    m, v, found = 0.0, tau**2, []
    for change in changes:
        m = beta_1 * m + (1 - beta_1) * change
        sign = (v > change**2) - (v < change**2)
        v = {
            "fedadagrad": v + change**2,
            "fedyogi": v - (1 - beta_2) * change**2 * sign,
            "fedadam": beta_2 * v + (1 - beta_2) * change**2,
        }[kind]
        weights = weights + eta * m / (v**0.5 + tau)
        found.append(weights)
    return found


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad"])
def test_adaptive_servers_are_algorithm_2(name):
    # Two sites of weights 1 and 3 move by d and 5 d: their mean change is (1 d + 3 * 5 d) / 4 = 4 d.
    rule, arrays, found = server(name, server_rate=0.1, tau=0.01), {"w": np.float32([0.5])}, []
    changes = [0.02, -0.3, 0.001, 0.0, 0.05]
    for number, change in enumerate(changes, start=1):
        sent = {"a": update(arrays["w"] + change), "b": update(arrays["w"] + 5 * change, weight=3)}
        arrays = rule.aggregate(number, arrays, sent)
        found.append(float(arrays["w"][0]))
    beta_1 = 0.0 if name == "fedadagrad" else 0.9
    np.testing.assert_allclose(found, reddi(name, 0.5, [4 * c for c in changes], 0.1, beta_1, 0.99, 0.01), rtol=1e-4)


def test_the_first_step_of_fedadam_by_hand():
    # Change 0.3, tau 0.1, eta 1: m = 0.1 * 0.3 = 0.03; v = 0.99 * 0.01 + 0.01 * 0.09 = 0.0108; 0.03 / (0.103923 + 0.1).
    done = server("fedadam", server_rate=1.0, tau=0.1).aggregate(
        1, {"w": np.zeros(1, np.float32)}, {"a": update([0.3])}
    )
    np.testing.assert_allclose(done["w"], [0.147114], rtol=1e-5)


def test_an_adaptive_server_leaves_running_statistics_to_the_mean():
    rule = server("fedadam", frozenset({"s"}), server_rate=10.0)
    updates = {
        n: Update({"w": np.float32([v]), "s": np.float32([v])}, {}, 1.0, 1, 0.0) for n, v in (("a", 1), ("b", 3))
    }
    done = rule.aggregate(1, {"w": np.zeros(1, np.float32), "s": np.ones(1, np.float32)}, updates)
    np.testing.assert_allclose(done["s"], [2.0])
    assert float(done["w"][0]) > 3
    assert not any(name.endswith("/s") for name in rule.state())


# --- sites that may be malicious -------------------------------------------------------------------------------------


def sent_by(vectors):
    return {f"centre{place}": update(vector, weight=1.0 + place) for place, vector in enumerate(vectors)}


def scores_of(vectors, malicious):
    """Krum's scores by the words of the paper: for each vector, the sum of squared distances to its n - f - 2 closest."""
    found = []
    for i, one in enumerate(vectors):
        squares = sorted(
            sum((a - b) ** 2 for a, b in zip(one, o, strict=True)) for j, o in enumerate(vectors) if j != i
        )
        found.append(sum(squares[: max(1, len(vectors) - malicious - 2)]))
    return found


def slow_bulyan(vectors, malicious):
    """Algorithm of El Mhamdi et al., section 4, by its words: Krum on those who are left until n - 2f are chosen, then by
    coordinate the mean of the n - 4f closest to the median."""
    left, chosen = [list(v) for v in vectors], []
    while len(chosen) < len(vectors) - 2 * malicious:
        scores = scores_of(left, malicious)
        chosen.append(left.pop(scores.index(min(scores))))
    found = []
    for values in zip(*chosen, strict=True):
        middle = float(np.median(values))
        near = sorted(values, key=lambda value: abs(value - middle))[: len(chosen) - 2 * malicious]
        found.append(sum(near) / len(near))
    return found


@pytest.mark.parametrize(("sites", "malicious"), [(3, 0), (5, 1), (8, 2)])
def test_krum_takes_the_site_with_the_smallest_score(sites, malicious):
    draws = np.random.default_rng(sites)
    vectors = draws.normal(size=(sites, 6)).astype(np.float32)
    vectors[:malicious] += 5
    done = Nearest(malicious, frozenset()).aggregate(1, {"w": np.zeros(6, np.float32)}, sent_by(vectors))
    np.testing.assert_array_equal(done["w"], vectors[int(np.argmin(scores_of(vectors.tolist(), malicious)))])
    assert np.abs(done["w"]).max() < 4


def test_krum_looks_at_no_running_statistic():
    # By parameters centre0 and centre1 are neighbours and centre2 is far; by variances centre0 is as far as can be.
    parameters, variances = [0.0, 0.1, 5.0], [1e5, 1.0, 1.0]
    sent = {
        f"centre{place}": Update({"w": np.float32([w]), "v": np.float32([v])}, {}, 1.0, 1, 0.0)
        for place, (w, v) in enumerate(zip(parameters, variances, strict=True))
    }
    arrays = {"w": np.zeros(1, np.float32), "v": np.ones(1, np.float32)}
    done = Nearest(0, frozenset({"v"})).aggregate(1, arrays, sent)
    assert (float(done["w"][0]), float(done["v"][0])) == (0.0, 1e5), "the first of two that are as near to each other"
    assert float(Nearest(0, frozenset()).aggregate(1, arrays, sent)["w"][0]) == pytest.approx(0.1)


@pytest.mark.parametrize(("sites", "malicious"), [(3, 0), (7, 1), (9, 1), (11, 2)])
def test_bulyan_is_krum_again_and_again_then_a_mean_near_the_median(sites, malicious):
    for seed in range(20):
        draws = np.random.default_rng(seed)
        vectors = draws.normal(size=(sites, 5)).astype(np.float32)
        vectors[:malicious] += draws.choice([-1, 1]) * 30
        done = NearMedian(malicious, frozenset()).aggregate(1, {"w": np.zeros(5, np.float32)}, sent_by(vectors))
        np.testing.assert_allclose(done["w"], slow_bulyan(vectors.tolist(), malicious), rtol=1e-5, atol=1e-6)
        assert np.abs(done["w"]).max() < 5


def test_ranking_once_is_not_bulyan():
    # Why Flower's is not used: of seven sites it would take the five with the smallest scores of one ranking.
    differs = 0
    for seed in range(20):
        vectors = np.random.default_rng(seed).normal(size=(7, 5))
        once = set(np.argsort(scores_of(vectors.tolist(), 1))[:5])
        left, chosen = list(range(7)), set()
        for _ in range(5):
            scores = scores_of(vectors[left].tolist(), 1)
            chosen.add(left.pop(scores.index(min(scores))))
        differs += chosen != once
    assert differs > 0


@pytest.mark.parametrize(
    ("name", "sites", "malicious", "says"),
    [
        ("krum", 3, 1, "needs 5 sites in a round.*and 3 take part; with 3, malicious may be 0 at most"),
        ("krum", 2, 0, "needs 3 sites in a round.*and 2 take part; it has no use for fewer than 3"),
        ("bulyan", 6, 1, "needs 7 sites in a round.*and 6 take part; with 6, malicious may be 0 at most"),
        ("bulyan", 10, 2, "needs 11 sites.*with 10, malicious may be 1 at most"),
    ],
)
def test_a_scenario_with_too_few_sites_for_the_theorem_is_refused(name, sites, malicious, says):
    with pytest.raises(ScenarioError, match=says):
        method(name, malicious=malicious).check_sites(sites)


def test_as_many_sites_as_the_theorem_asks_for_will_do():
    method("krum", malicious=1).check_sites(5)
    method("bulyan", malicious=1).check_sites(7)
    with pytest.raises(ScenarioError, match="and 3 take part"):
        method("krum", malicious=1, fraction=0.6).check_sites(5)


# --- fairness ---------------------------------------------------------------------------------------------------------


def slow_qfedavg(weights, received, losses, q, lipschitz):
    """Algorithm 2 of Li et al. 2020 as it stands there, for vectors."""
    deltas, normalisers = [], []
    for own, loss in zip(received, losses, strict=True):
        moved = lipschitz * (weights - own)
        deltas.append(loss**q * moved)
        normalisers.append(q * loss ** (q - 1) * np.sum(moved**2) + lipschitz * loss**q)
    return weights - sum(deltas) / sum(normalisers)


@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 5.0])
def test_qfedavg_is_algorithm_2(q):
    draws = np.random.default_rng(1)
    start, ends, losses = draws.normal(size=9), draws.normal(size=(3, 9)), [0.3, 1.7, 0.9]
    sent = {
        f"centre{i}": update(end, weight=5.0, loss=loss) for i, (end, loss) in enumerate(zip(ends, losses, strict=True))
    }
    rule = Fair(q, lambda number, steps: 0.4, frozenset())
    done = rule.aggregate(1, {"w": start.astype(np.float32)}, sent)
    np.testing.assert_allclose(done["w"], slow_qfedavg(start, ends, losses, q, 1 / 0.4), rtol=1e-5, atol=1e-6)


def test_qfedavg_survives_what_a_power_of_a_loss_would_not():
    sent = {"a": update([1.0], loss=0.0), "b": update([3.0], loss=1e6)}
    done = Fair(100.0, lambda number, steps: 1.0, frozenset()).aggregate(1, {"w": np.zeros(1, np.float32)}, sent)
    # Only b counts: 1 * 3 over 100 * 9 / 1e6 + 1.
    np.testing.assert_allclose(done["w"], [3 / (1 + 9e-4)], rtol=1e-6)


def test_with_q_0_qfedavg_is_the_plain_mean(tmp_path):
    fair = run(tmp_path / "fair", "qfedavg", q=0.0, rounds=1)[1]
    mean = run(tmp_path / "mean", weighting="equal", rounds=1)[1]
    for name in mean:
        np.testing.assert_allclose(fair[name], mean[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_accumulated_rate_is_how_far_torchs_steps_move_a_weight():
    work = Work(first=3, steps=60, total=10**9, rate=0.2, momentum=0.9)
    weight = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=0.2, momentum=0.9, nesterov=True)
    for _ in range(work.steps):
        weight.grad = torch.ones(1)
        optimiser.step()
    assert accumulated_rate(work) == pytest.approx(-float(weight.detach()), rel=1e-4)
    assert accumulated_rate(work) == pytest.approx(60 * 0.2 / (1 - 0.9), rel=0.2), "about steps * rate / (1 - momentum)"


def test_a_site_of_qfedavg_tells_the_loss_of_what_it_received(tmp_path):
    federation, _ = run(tmp_path, "qfedavg", rounds=1)
    for name, site in federation.all.items():
        own, net = site.training(), build(method().parameters, site).eval()
        with torch.no_grad():
            parts = [slice(place, place + 4) for place in range(0, len(own.images), 4)]
            losses = [
                float(
                    segmentation_loss(
                        net(torch.from_numpy(own.images[part])[:, None]), torch.from_numpy(own.masks[part])
                    )
                )
                for part in parts
            ]
        (sent,) = [p for action, other, p in federation.got if (action, other) == ("train", name)]
        assert sent.arrays["numbers"][2] == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_loss_that_weighs_sites_cannot_be_private():
    with pytest.raises(ScenarioError, match="q-FedAvg weighs sites by their loss"):
        method("qfedavg", dp={"epsilon": 8.0})


# --- who takes part, and what is kept --------------------------------------------------------------------------------


def test_sites_are_drawn_by_seed_and_round_from_their_names(tmp_path):
    sites = [FakeSite(f"centre{i}", blocks(4), tmp_path) for i in range(5)]
    federation = FakeFederation(method(), sites, tmp_path / "server")
    drawn = [chosen_sites(federation, number, 0.4) for number in range(1, 30)]
    backwards = FakeFederation(method(), sites[::-1], tmp_path / "server")
    assert drawn == [chosen_sites(backwards, number, 0.4) for number in range(1, 30)]
    assert all(len(chosen) == 2 and chosen == sorted(chosen) for chosen in drawn)
    assert {name for chosen in drawn for name in chosen} == set(federation.sites)
    other = FakeFederation(method(), sites, tmp_path / "server", seed=1)
    assert drawn != [chosen_sites(other, number, 0.4) for number in range(1, 30)]
    assert chosen_sites(federation, 1, 0.01) == drawn[0][:1] or len(chosen_sites(federation, 1, 0.01)) == 1


def test_only_chosen_sites_train(tmp_path):
    federation, _ = run(tmp_path, fraction=0.34, rounds=4)
    trained = [(number, site) for action, number, site in federation.asked if action == "train"]
    assert len(trained) == 4
    assert trained == [(n, *chosen_sites(federation, n, 0.34)) for n in range(1, 5)]


def test_norm_layers_stay_home(tmp_path):
    federation, arrays = run(tmp_path, "fedbn")
    norms = norm_names(build(method().parameters, federation.all["centre0"]))
    assert norms
    assert not norms & set(arrays)
    for _, _, payload in federation.got:
        assert not any(name.removeprefix("net/") in norms for name in payload.arrays)
    finals = [federation.all[name].vault.load("final") for name in federation.sites]
    shared = [name for name in finals[0] if name not in norms]
    kept = [name for name in finals[0] if name in norms]
    assert all((finals[0][name] == finals[1][name]).all() for name in shared)
    assert any((finals[0][name] != finals[1][name]).any() for name in kept), "each site has statistics of its own"


def test_personal_weights_stay_home_and_differ(tmp_path):
    federation, arrays = run(tmp_path, "ditto")
    finals = [federation.all[name].vault.load("final") for name in federation.sites]
    assert any((finals[0][name] != finals[1][name]).any() for name in finals[0])
    assert_equal(arrays, run(tmp_path / "average")[1])


def test_ditto_under_differential_privacy_says_what_its_shared_network_spent(tmp_path):
    federation, _ = run(tmp_path, "ditto", rounds=1, dp={"epsilon": 8.0})
    budgets = [entry for entry in federation.entries if isinstance(entry, Budget)]
    assert {budget.site for budget in budgets} == set(federation.sites)
    assert all(0 < budget.epsilon <= 8.0 for budget in budgets)


@pytest.mark.parametrize(("epsilon", "unit"), [("inf", "slice"), (float("inf"), "patient")])
def test_an_infinite_epsilon_is_the_same_recipe_without_noise_and_without_a_promise(tmp_path, epsilon, unit):
    dp = {"epsilon": epsilon, "unit": unit, "together": 2}
    federation, control = run(tmp_path / "control", rounds=1, dp=dp)
    p = federation.method.parameters
    assert p.model_dump(mode="json")["dp"]["epsilon"] == "inf", "JSON can hold it"
    assert json.loads(json.dumps(p.model_dump(mode="json"), allow_nan=False))
    assert type(p).model_validate(p.model_dump(mode="json")) == p
    # A huge epsilon needs next to no noise, and is otherwise the same: the same sampling, clipping and norm.
    private = run(tmp_path / "private", rounds=1, dp={**dp, "epsilon": 5e8})[1]
    start = weights_of(build(p, federation.all["centre0"]))
    assert control.keys() == private.keys() == start.keys()
    assert not any("running" in name for name in start), "GroupNorm"
    moved = sum(np.square(control[name] - start[name]).sum() for name in start)
    apart = sum(np.square(control[name] - private[name]).sum() for name in start)
    assert apart < 1e-3 * moved
    budgets = [entry for entry in federation.entries if isinstance(entry, Budget)]
    assert [(b.site, b.epsilon, b.noise, b.unit) for b in budgets] == [(s, None, 0.0, unit) for s in federation.sites]
    assert any("nothing is promised" in note for _, note in (e for e in federation.entries if isinstance(e, tuple)))
    assert not federation.method.techniques, "nothing was perturbed"
    assert any("without noise" in word for _, _, payload in federation.got for word in payload.history)
    assert {point.loss for point in federation.entries if isinstance(point, CurvePoint)} == {None}


@pytest.mark.parametrize("epsilon", [0, -1, "nan", "lots", "-inf"])
def test_an_epsilon_that_is_none_is_refused(epsilon):
    with pytest.raises(ScenarioError, match="epsilon"):
        method(dp={"epsilon": epsilon})


def test_a_delta_that_lets_a_unit_out_is_noted(tmp_path):
    # 8, 12 and 16 slices: a delta of 0.1 is below 1 / 8 and not below 1 / 12.
    federation, _ = run(tmp_path, rounds=1, dp={"epsilon": 8.0, "delta": 0.1})
    said = {
        site for site, note in (e for e in federation.entries if isinstance(e, tuple)) if "delta 0.1 is not" in note
    }
    assert said == {"centre1", "centre2"}
    assert method(dp={"epsilon": 8.0}).parameters.dp.delta == 1e-5


def test_epochs_give_larger_sites_more_steps():
    work = method(local_epochs=2.0)
    assert [work.work(1, slices).steps for slices in (4, 8, 15)] == [2, 4, 8]  # 2 * slices / 4, rounded to even
    assert work.work(3, 8).first == 8
    assert work.work(3, 8).total == 12


def test_the_rate_decays_over_the_run_not_the_round():
    early, late = method().work(1, 8), method().work(3, 8)
    assert early.rate_at(0) == pytest.approx(0.1)
    assert late.rate_at(0) == pytest.approx(0.1 * (1 - 4 / 6) ** 0.9)


def test_a_memory_keeps_what_stood_before_a_round_that_is_done_again(tmp_path):
    site = FakeSite("a", blocks(4), tmp_path)
    assert load_state(site, "m", 1) == {}
    for number in (1, 2, 4):
        save_state(site, "m", number, {"v": np.array([number])})
    assert load_state(site, "m", 5)["v"] == 4
    assert load_state(site, "m", 4)["v"] == 2
    save_state(site, "m", 4, {"v": np.array([40])})
    assert load_state(site, "m", 4)["v"] == 2
    assert load_state(site, "m", 5)["v"] == 40


def test_fednova_refuses_an_optimiser_without_a_closed_form():
    with pytest.raises(ScenarioError, match="sgd"):
        method("fednova", optimiser="adamw")


def test_a_round_without_sites_ends_the_run(tmp_path):
    sites = [FakeSite("centre0", blocks(4), tmp_path / "sites")]
    federation = FakeFederation(method(), sites, tmp_path / "server", lost=[("train", "centre0")])
    with pytest.raises(QuorumError):
        federation.method.conduct(federation)


def test_other_sites_are_drawn_where_all_that_were_drawn_have_left(tmp_path):
    sites = [FakeSite(f"centre{i}", blocks(4, seed=i), tmp_path / "sites") for i in range(3)]
    federation = FakeFederation(method(rounds=1, fraction=0.34), sites, tmp_path / "server")
    (first,) = chosen_sites(federation, 1, 0.34)
    federation.lost.add(("train", first))
    measured = federation.method.conduct(federation)
    assert set(measured) == {site.name for site in sites} - {first}


@pytest.mark.parametrize("name", ["krum", "bulyan"])
def test_with_fewer_sites_than_the_theorem_asks_for_the_run_ends_without_quorum(name):
    rule = method(name).aggregation(3, frozenset(), 0)
    with pytest.raises(QuorumError, match="cannot aggregate the updates of 2 sites; with malicious = 0 it needs 3"):
        rule.aggregate(1, {"w": np.zeros(2, np.float32)}, {"a": update([1.0, 2.0]), "b": update([2.0, 3.0])})


def test_central_noise_is_what_was_accounted_when_a_site_stays_away():
    """One of three sites is withheld. What is measured: the noise on the sum, and how far one site can move it. Their ratio
    is the multiplier that was accounted, and Google's accountant finds the stated epsilon from what was measured."""
    from dp_accounting import dp_event
    from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

    start, far = np.zeros(40_000), np.full(40_000, 7.0)
    arrays = {"w": start.astype(np.float32)}
    two, one = {"a": update(start), "b": update(far)}, {"a": update(start)}
    private = method("fedavg-central-dp", epsilon=8.0, rounds=20)
    mean = private.aggregation(3, frozenset(), 0)
    with_b, without_b = (mean.aggregate(4, arrays, each)["w"].astype(np.float64) for each in (two, one))
    sensitivity = np.linalg.norm(with_b - without_b)
    assert sensitivity == pytest.approx(1.0 / 3, rel=1e-3), "clipped to norm 1, over the three that were planned"
    measured = np.std(without_b) / sensitivity
    assert measured == pytest.approx(mean.noise, rel=0.02)  # 40,000 draws: deviation 0.35 %
    account = RdpAccountant()
    account.compose(dp_event.SelfComposedDpEvent(dp_event.GaussianDpEvent(measured), 20))
    assert account.get_epsilon(1e-5) == pytest.approx(8.0, rel=0.06)  # 2 % of the multiplier, 3 % between accountants
    mean.releases = 20
    budget = mean.spent()
    assert budget.epsilon == pytest.approx(8.0, rel=0.02)
    assert (budget.delta, budget.unit) == (1e-5, "site")
    assert "nothing in its place" in budget.mechanism, "the adjacency is stated"


def test_a_change_within_the_central_clip_is_left_as_it_is():
    # Changes (0.3, 0.4), norm 0.5, and (30, 40), norm 50, clipped to 1: (0.6, 0.8). Sum (0.9, 1.2) over 3 planned: (0.3, 0.4).
    rule = NoisyMean(noise=0.0, clip=1.0, delta=1e-5, planned=3, seed=0)
    done = rule.aggregate(1, {"w": np.zeros(2, np.float32)}, {"a": update([0.3, 0.4]), "b": update([30, 40])})
    np.testing.assert_allclose(done["w"], [0.3, 0.4], rtol=1e-6)


# --- bounds and curves -----------------------------------------------------------------------------------------------


def test_the_cross_site_matrix_is_whole(tmp_path):
    federation, _ = run(tmp_path, "local-only")
    cells = [entry for entry in federation.entries if isinstance(entry, CrossSite)]
    assert {(c.trained_at, c.measured_at) for c in cells} == {
        (a, b) for a in federation.sites for b in federation.sites
    }


def test_without_the_matrix_no_weights_leave(tmp_path):
    federation, _ = run(tmp_path, "local-only", cross_site=False)
    assert WEIGHTS not in {payload.kind for _, _, payload in federation.got}


def test_a_round_that_is_cut_short_while_it_is_scored_loses_no_point(tmp_path):
    sites = [FakeSite("centre0", blocks(8), tmp_path / "sites")]
    federation = FakeFederation(method(curve_points=3), sites, tmp_path / "server")
    asked = federation.ask

    def failing(action, expected, *, number=0, **more):
        if (action, number) == ("validate", 2):
            raise KeyboardInterrupt
        return asked(action, expected, number=number, **more)

    federation.ask = failing
    with pytest.raises(KeyboardInterrupt):
        federation.method.conduct(federation)
    again = FakeFederation(method(curve_points=3), sites, tmp_path / "server")
    again.method.conduct(again)
    points = {
        e.round for f in (federation, again) for e in f.entries if isinstance(e, CurvePoint) and e.dice is not None
    }
    assert points == {1, 2, 3}


def test_curves_have_a_point_for_every_site_and_round(tmp_path):
    federation, _ = run(tmp_path, rounds=4, curve_points=2)
    points = [entry for entry in federation.entries if isinstance(entry, CurvePoint)]
    assert len(points) == 4 * 3
    assert (
        {p.round for p in points if p.dice is not None} == {2, 4} == marks(method(rounds=4, curve_points=2).parameters)
    )
    assert all(p.loss is not None for p in points)


# --- selective sharing -------------------------------------------------------------------------------------------------


def selective(**more):
    return SelectiveParameters(**{"gamma": 1.0, "tau": 0.5, "epsilon_1": 1e6, "epsilon_3": 1e6, **more})


def test_without_noise_the_values_above_the_threshold_are_selected():
    values = np.array([0.1, -0.6, 0.7, 5.0, -0.2, 0.49])
    places, sent = select(values, 6, selective(), np.random.default_rng(0))
    assert places.tolist() == [1, 2, 3]
    np.testing.assert_allclose(sent, [-0.6, 0.7, 1.0], atol=1e-3)  # 5.0 is clipped to gamma


def test_no_more_than_asked_for_and_each_but_once():
    places, sent = select(np.ones(1000), 50, selective(), np.random.default_rng(0))
    assert len(places) == len(set(places.tolist())) == len(sent) == 50
    assert not np.array_equal(places, np.arange(50)), "the order is random, not that of the network"


def test_every_released_value_carries_noise_of_its_own():
    # Lap(2 * 1 / 4) has deviation sqrt(2) / 2; clipping to +-1 takes some of it. No two values are equal, none is exact.
    places, sent = select(np.zeros(20_000), 20_000, selective(tau=0.0, epsilon_3=4.0), np.random.default_rng(1))
    inside = sent[np.abs(sent) < 1]
    assert len(np.unique(inside)) > 0.99 * len(inside)
    share = np.exp(-1 / 0.5)  # P(|Lap(b)| > 1) = exp(-1 / b), b = 1/2
    assert 1 - len(inside) / len(sent) == pytest.approx(share, abs=0.01)
    assert (sent != 0).all()
    assert len(places) > 9000


def test_the_account_adds_up_every_value(tmp_path):
    federation, _ = run(tmp_path, "selective-sharing", rounds=2, share=0.1)
    (budget, *_) = [entry for entry in federation.entries if isinstance(entry, Budget)]
    net = build(method("selective-sharing").parameters, federation.all["centre0"])
    values = sum(value.size for value in weights_of(net).values())
    count = int(0.1 * values)
    assert budget.epsilon == pytest.approx(2 * (1 + (2 * count) ** (2 / 3) + count))
    assert budget.unit == "site"
    sent = [p for _, _, p in federation.got if p.kind == WEIGHTS]
    assert all(len(p.arrays["values"]) <= count for p in sent)
    assert not any(name.startswith("net/") for p in sent for name in p.arrays)
