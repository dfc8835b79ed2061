"""DP-SGD at a site: clipping against one slice at a time, the account against another accountant, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import blocks

from fedprivseg.nets.baseline import build_net, weights_of
from fedprivseg.nets.local_training import Work
from fedprivseg.nets.private_training import Mechanism, epsilon_spent, noise_for, separate_loss, train_private_round
from fedprivseg.nets.segmentation import segmentation_loss

WORK = Work(first=0, steps=1, total=10**9, rate=1.0, momentum=0.0, decay=0.0, half=False)


def net(name="unet", norm="group"):
    return build_net(name, norm, 32, 3, 0, "net")


def moved(mechanism, seed=0, work=WORK, slices=None, correction=None, **more):
    """How one private round moves the weights, over the rate: one vector."""
    own = slices or blocks(8)
    trained = net()
    before = torch.cat([p.detach().flatten().clone() for p in trained.parameters()])
    train_private_round(
        trained, own.images, own.masks, own.subjects, work, mechanism, seed, ("site",), correction=correction, **more
    )
    return before - torch.cat([p.detach().flatten() for p in trained.parameters()])


def gradient(own, chosen):
    """The slow oracle: the gradient of the loss of the slices `chosen`, one backward pass, no hooks."""
    fresh = net()
    answer = fresh(torch.from_numpy(own.images[chosen])[:, None])
    separate_loss(answer, torch.from_numpy(own.masks[chosen])).backward()
    return torch.cat([p.grad.flatten() for p in fresh.parameters()])


def test_without_noise_a_step_is_the_sum_of_clipped_gradients_of_single_slices():
    own, clip = blocks(6), 0.05
    found = moved(Mechanism(noise=0.0, rate=1.0, clip=clip, unit="slice"), slices=own)
    total = torch.zeros_like(found)
    for index in range(6):
        each = gradient(own, [index])
        total += each * min(1.0, clip / float(each.norm()))
    torch.testing.assert_close(found, total / 6, rtol=1e-3, atol=1e-5)


def test_one_slice_moves_a_step_by_no_more_than_its_clip():
    # Two data sets that differ in one slice, however wild: the sums differ by 2 * clip at most.
    own, clip = blocks(6), 0.01
    mechanism = Mechanism(noise=0.0, rate=1.0, clip=clip, unit="slice")
    other = blocks(6)
    other.images[2], other.masks[2] = 1.0, 3
    apart = 6 * (moved(mechanism, slices=own) - moved(mechanism, slices=other)).norm()
    assert 0 < apart <= 2 * clip * 1.01


def test_one_patient_moves_a_step_by_no_more_than_its_clip():
    own, clip = blocks(12), 0.01  # three patients of four slices
    mechanism = Mechanism(noise=0.0, rate=1.0, clip=clip, unit="patient", per_patient=3)
    other = blocks(12)
    other.images[4:8], other.masks[4:8] = 1.0, 3
    apart = 3 * (moved(mechanism, slices=own) - moved(mechanism, slices=other)).norm()
    assert 0 < apart <= 2 * clip * 1.01


def test_the_noise_has_the_deviation_that_the_account_assumes():
    # Nobody is drawn at rate 0, so a step is noise alone: deviation noise * clip over the expected batch (at least 1).
    found = moved(Mechanism(noise=2.0, rate=0.0, clip=0.3, unit="slice"))
    assert float(found.std()) == pytest.approx(2.0 * 0.3, rel=0.01)  # 490,000 draws
    assert abs(float(found.mean())) < 0.005
    assert not torch.equal(found, moved(Mechanism(2.0, 0.0, 0.3, "slice"), seed=1))
    assert torch.equal(found, moved(Mechanism(2.0, 0.0, 0.3, "slice")))


def test_a_correction_sees_only_what_the_noise_has_covered():
    seen = []

    class Spy:
        def __call__(self, net):
            seen.append(torch.cat([p.grad.flatten() for p in net.parameters()]))

    quiet = moved(Mechanism(0.0, 1.0, 0.1, "slice"))
    moved(Mechanism(50.0, 1.0, 0.1, "slice"), correction=Spy())
    assert float(seen[0].norm()) > 100 * float(quiet.norm())


def test_batch_norm_is_refused():
    own = blocks(4)
    with pytest.raises(ValueError, match="GroupNorm"):
        train_private_round(
            net(norm="batch"), own.images, own.masks, own.subjects, WORK, Mechanism(1, 1, 1, "slice"), 0, ("x",)
        )


def test_the_loss_of_a_batch_is_the_mean_of_its_slices():
    # The pooled Dice of plain training is not: one slice would reach into the gradients of the others.
    own = blocks(4)
    logits, masks = torch.randn(4, 3, 32, 32), torch.from_numpy(own.masks)
    each = [float(segmentation_loss(logits[i : i + 1], masks[i : i + 1])) for i in range(4)]
    assert float(separate_loss(logits, masks)) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(segmentation_loss(logits, masks)) != pytest.approx(np.mean(each), rel=1e-4)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta"), [(1.1, 0.01, 1000, 1e-5), (1.5, 0.1, 500, 1e-3), (4.0, 1.0, 25, 1e-3)]
)
def test_the_account_agrees_with_googles(noise, rate, steps, delta):
    from dp_accounting import dp_event
    from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
    from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

    def other(kind):
        step = dp_event.GaussianDpEvent(noise)
        account = kind()
        account.compose(
            dp_event.SelfComposedDpEvent(dp_event.PoissonSampledDpEvent(rate, step) if rate < 1 else step, steps)
        )
        return account.get_epsilon(delta)

    ours = epsilon_spent(noise, delta, rate, steps)
    assert ours == pytest.approx(other(RdpAccountant), rel=0.03)
    assert ours >= other(PLDAccountant), "the exact account is never above ours: ours is a bound"


def test_the_gaussian_mechanism_by_hand():
    # Without sampling, order a costs a * steps / (2 noise^2); the bound is the least over orders of
    # that + log((a - 1) / a) - (log(delta) + log(a)) / (a - 1) (Balle et al. 2020, theorem 21).
    noise, steps, delta = 5.0, 10, 1e-3
    orders = np.arange(2, 64)
    by_hand = (
        orders * steps / (2 * noise**2)
        + np.log((orders - 1) / orders)
        - (np.log(delta) + np.log(orders)) / (orders - 1)
    )
    assert epsilon_spent(noise, delta, 1.0, steps) == pytest.approx(by_hand.min(), rel=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_the_noise_spends_the_budget_and_no_more(epsilon):
    noise = noise_for(epsilon, 1e-3, 0.1, 500)
    assert 0.98 * epsilon <= epsilon_spent(noise, 1e-3, 0.1, 500) <= epsilon
    assert epsilon_spent(noise, 1e-3, 0.1, 250) < epsilon
    assert epsilon_spent(noise, 1e-3, 0.1, 0) == 0


def test_without_noise_everything_else_stays():
    """The control of a private run: same lots, same clipping, so that with little noise both are nearly one step."""
    quiet, loud = (moved(Mechanism(noise, 0.5, 0.05, "patient", 3), slices=blocks(16)) for noise in (0.0, 1e-6))
    torch.testing.assert_close(quiet, loud, rtol=1e-3, atol=1e-6)
    assert 0 < float(quiet.norm()) <= 0.05 * 4 / 2 * 1.01, (
        "four patients of whom two are expected, each clipped to 0.05"
    )


def test_it_repeats_and_leaves_the_world_alone():
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    mechanism = Mechanism(1.0, 0.5, 1.0, "slice")
    assert torch.equal(moved(mechanism), moved(mechanism))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_nothing_of_the_hooks_is_left():
    own, trained = blocks(4), net()
    train_private_round(trained, own.images, own.masks, own.subjects, WORK, Mechanism(1, 1, 1, "slice"), 0, ("x",))
    assert list(weights_of(trained)) == list(weights_of(net()))
    assert not any(module._forward_hooks or module._backward_hooks for module in trained.modules())
