"""One round of an averaging method under secure aggregation: the four steps of Bonawitz et al. 2017, figure 4, as orders.

    keys      every chosen site makes two key pairs and publishes their public halves
    shares    it shares its two secrets among all, each share encrypted to the site that will hold it
    masked    it trains, and sends its weighted update in fixed point with all masks on
    unmask    those who are left open what is needed to take the masks off the sum: own masks of those who sent,
              pairwise masks of those who did not, and never both of one site

A site that leaves between two steps has dropped out. With fewer than the threshold left the round ends with QuorumError
and nothing is opened. A site's weight and loss travel inside the masked sum.

A site does not take the server's word for who is there: it masks only if as many as the threshold shared secrets with it, and
only against those whose keys it saw. It remembers for the whole run over which sites each round was opened, and opens no
round over another set: a round that is done again after an interruption trains to the same updates, and two sums of the same
updates over different sites differ by a single site's.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from fedprivseg.core.array_bytes import arrays_digest
from fedprivseg.core.errors import PayloadError, QuorumError, ScenarioError, ServerError
from fedprivseg.core.expected import MOST_LOSS, MOST_WEIGHT, Array, Expected
from fedprivseg.core.kinds import MASK_SHARE, MASKED_WEIGHTS, WEIGHTS
from fedprivseg.core.records import Order, Payload
from fedprivseg.core.task import Scope
from fedprivseg.methods.aggregation import Update
from fedprivseg.methods.client_update import Learner, run_round, trained_history
from fedprivseg.methods.method import Action, Declaration, Federation, Method, Site
from fedprivseg.methods.secure_aggregation import (
    MOST_SITES,
    SECRET_BYTES,
    SHARE_BYTES,
    Keys,
    agree,
    combine,
    from_fixed,
    mask,
    public_of,
    seal,
    share,
    to_fixed,
    unmask,
    unseal,
    usable,
)
from fedprivseg.methods.training import (
    NET,
    SummableParameters,
    flat,
    numbered,
    outline,
    packed,
    prefixed,
    travelling,
    under,
    unflat,
    weight_of,
)

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights

MASKS = "masks"
"""A site's secrets of the round under way, in its vault."""

OPENED = "masks-opened"
"""Over which sites each round was opened: the round's number -> the names, one a line, as bytes (n,) uint8."""

_TO, _FROM, _KEYS, _STAYED = "to/", "from/", "keys/", "stayed/"
_PUBLISHED, _SHARED = ("public keys",), ("secret shares, encrypted to each site",)
_OPENED = ("shares that open the sum's masks",)
_SEALED_BYTES = 12 + 2 * SHARE_BYTES + 16
_BEYOND = 2  # values of the masked vector beyond the arrays: the weight and the weighted loss


def masked_keys(method: Learner, site: Site, order: Order) -> Payload:
    """Step 0: two fresh key pairs; the public halves leave."""
    keys = Keys.fresh()
    site.vault.save(MASKS, {"encryption": _bytes(keys.encryption), "masking": _bytes(keys.masking)})
    public = np.stack([_bytes(half) for half in keys.public()])
    return numbered(MASK_SHARE, site, "train", {"public": public}, order.number, _PUBLISHED)


def _halves(kept: Weights) -> np.ndarray:
    """The public halves (2, 32) uint8 of the private keys that a site kept."""
    return np.stack([_bytes(public_of(kept[name].tobytes())) for name in ("encryption", "masking")])


def masked_shares(method: Learner, site: Site, order: Order) -> Payload:
    """Step 1: share the masking key and the own mask's seed among all who published keys, encrypted for each."""
    public = _public(order)
    threshold = threshold_of(method.parameters, len(public))
    kept = site.vault.load(MASKS)
    if len(public) < threshold or site.name not in public or not (public[site.name] == _halves(kept)).all():
        raise ValueError(
            f"{len(public)} sites published keys, {threshold} are needed, and this site's own must be there"
        )
    own = secrets.token_bytes(SECRET_BYTES)
    names = sorted(public)
    site.vault.save(MASKS, {**kept, "own": _bytes(own), **prefixed(_KEYS, public)})
    maskings, seeds = (share(secret, len(names), threshold) for secret in (kept["masking"].tobytes(), own))
    sealed = {}
    for name, masking, seed in zip(names, maskings, seeds, strict=True):
        key = agree(kept["encryption"].tobytes(), public[name][0].tobytes(), _context(order.number, site.name, name))
        sealed[_TO + name] = _bytes(seal(key, masking + seed, _context(order.number, site.name, name)))
    return numbered(MASK_SHARE, site, "train", sealed, order.number, _SHARED)


def masked_update(method: Learner, site: Site, order: Order) -> Payload:
    """Step 2: train, then send the weighted update with all masks on."""
    assert order.answer is not None, "a round starts from weights"
    sealed = under(order.answer.arrays, _FROM)
    kept = site.vault.load(MASKS)
    known = under(kept, _KEYS)
    threshold = threshold_of(method.parameters, len(known))
    if len(sealed) < threshold or site.name not in sealed or not sealed.keys() <= known.keys():
        # Under the masks of a few sites, or of none, the update would be as good as open.
        raise ValueError(
            f"{len(sealed)} sites shared secrets, {threshold} are needed, all of them known and this one there"
        )
    site.vault.save(MASKS, {**kept, **prefixed(_FROM, sealed)})
    result = run_round(method, site, order)
    model = arrays_digest(under(order.answer.arrays, NET))
    pairs = []
    for other in sealed:
        if other != site.name:
            seed = agree(
                kept["masking"].tobytes(),
                kept[_KEYS + other][1].tobytes(),
                _pair(order.number, site.name, other, model),
            )
            pairs.append((seed, site.name < other))
    masked = mask(in_fixed_point(result), kept["own"].tobytes(), pairs)
    history = _masked_history(method.parameters, len(pairs))
    return numbered(MASKED_WEIGHTS, site, "train", {"masked": masked.view(np.int64)}, order.number, history)


def masked_open(method: Learner, site: Site, order: Order) -> Payload:
    """Step 3: hand out, of every site, the share that the server needs, and of no site both."""
    assert order.answer is not None, "the list of survivors is needed"
    kept = site.vault.load(MASKS)
    senders = sorted(under(kept, _FROM))
    stayed = {name: bool(value[0]) for name, value in under(order.answer.arrays, _STAYED).items()}
    holders = len(under(kept, _KEYS))
    if sorted(stayed) != senders or sum(stayed.values()) < threshold_of(method.parameters, holders):
        raise ValueError("too few sites stayed to open anything")
    _open_once(site, order.number, [name for name, stays in sorted(stayed.items()) if stays])
    opened = {}
    for name, stays in sorted(stayed.items()):
        key = agree(
            kept["encryption"].tobytes(), kept[_KEYS + name][0].tobytes(), _context(order.number, name, site.name)
        )
        text = unseal(key, kept[_FROM + name].tobytes(), _context(order.number, name, site.name))
        opened[_TO + name] = _bytes(text[SHARE_BYTES:] if stays else text[:SHARE_BYTES])
    # Forgotten at once, so that a second question about the same round cannot get the other half.
    site.vault.save(MASKS, {})
    return numbered(MASK_SHARE, site, "train", opened, order.number, _OPENED)


def _open_once(site: Site, number: int, names: list[str]) -> None:
    """Note, before anything is handed out, that round `number` is opened over the sites `names`. Raises ValueError if it was
    opened over others."""
    over = _bytes("\n".join(names).encode())
    done = site.vault.load(OPENED) if site.vault.has(OPENED) else {}
    before = done.get(str(number), over)
    if not np.array_equal(before, over):
        was = before.tobytes().decode().replace("\n", ", ")
        raise ValueError(
            f"round {number} was opened over {was}; over {', '.join(names)} too, one site's update would be known"
        )
    site.vault.save(OPENED, {**done, str(number): over})


MASKING: Mapping[str, Action] = MappingProxyType(
    {action.__name__: action for action in (masked_keys, masked_shares, masked_update, masked_open)}
)
"""The site's half of a masked round."""


def _keys(payload: Payload, facts: Mapping[str, int]) -> str | None:
    """The check of published keys: with one that nobody can agree with, every other site would fail."""
    return None if all(usable(half.tobytes()) for half in payload.arrays["public"]) else "a public key of its is none"


_HALVES = Expected(MASK_SHARE, "train", {"public": Array("uint8", (2, SECRET_BYTES))}, _PUBLISHED, check=_keys)


def _shares_declared(method: Learner, scope: Scope, order: Order) -> Expected:
    return Expected(
        MASK_SHARE, "train", {_TO + name: Array("uint8", (_SEALED_BYTES,)) for name in _public(order)}, _SHARED
    )


def _update_declared(method: Learner, scope: Scope, order: Order) -> Expected:
    assert order.answer is not None, "a round starts from weights"
    p, net = method.parameters, outline(method.parameters, scope)
    forms = travelling(net, method.client_update().personalised(net))
    size = sum(math.prod(length or 0 for length in form.shape) for form in forms.values()) + _BEYOND
    history = _masked_history(p, len(under(order.answer.arrays, _FROM)) - 1)
    return Expected(MASKED_WEIGHTS, "train", {"masked": Array("int64", (size,))}, history)


def _opened_declared(method: Learner, scope: Scope, order: Order) -> Expected:
    assert order.answer is not None, "the list of survivors is needed"
    names = under(order.answer.arrays, _STAYED)
    return Expected(MASK_SHARE, "train", {_TO + name: Array("uint8", (SHARE_BYTES,)) for name in names}, _OPENED)


def _masked_history(p: Any, others: int) -> tuple[str, ...]:
    return (*trained_history(p), "weighted, in fixed point", f"masked against {others} sites and by an own mask")


MASKING_DECLARES: Mapping[str, Declaration] = MappingProxyType(
    {
        "masked_keys": _HALVES,
        "masked_shares": _shares_declared,
        "masked_update": _update_declared,
        "masked_open": _opened_declared,
    }
)
"""What may answer its actions."""


def masked_round(
    method: Method,
    federation: Federation,
    number: int,
    arrays: Weights,
    chosen: Sequence[str],
    parameters: SummableParameters,
) -> Update:
    """The server half of one round: the weighted mean of the chosen sites' updates, and nothing about any one of them.

    Args:
        method: whose actions are asked for.
        federation: of the run.
        number: of the round.
        arrays: the present weights.
        chosen: the sites of the round.
        parameters: of the method.

    Raises:
        QuorumError: fewer sites than the threshold are left at a step.
        ServerError: the sum cannot be opened, or is none.
    """
    threshold = threshold_of(parameters, len(chosen))

    def ask(step: str, sites: Iterable[str], answers: Mapping[str, Payload] | None = None) -> dict[str, Payload]:
        present = method.ask(federation, step, number=number, answers=answers, sites=list(sites))
        if len(present) < threshold:
            raise QuorumError(
                f"round {number} ended in {step!r}: {len(present)} of {len(chosen)} sites are left, and {threshold} are "
                "needed to open the sum. Nothing was opened."
            )
        return present

    published = ask("masked_keys", chosen)
    public = {name: payload.arrays["public"] for name, payload in published.items()}
    directory = prefixed(_KEYS, public)
    everyone = {name: federation.answer(MASK_SHARE, name, directory, number) for name in published}
    shared = ask("masked_shares", published, everyone)
    body = packed(federation, arrays, {}, number)
    orders = {}
    for name in shared:
        mail = {_FROM + sender: payload.arrays[_TO + name] for sender, payload in shared.items()}
        orders[name] = federation.answer(WEIGHTS, name, {**body[name].arrays, **mail}, number)
    size = sum(value.size for value in arrays.values()) + _BEYOND
    masked = ask("masked_update", shared, orders)
    stayed = {_STAYED + name: np.array([name in masked], np.uint8) for name in sorted(shared)}
    who = {name: federation.answer(MASK_SHARE, name, stayed, number) for name in masked}
    opened = ask("masked_open", masked, who)
    with np.errstate(over="ignore"):
        total = sum((p.arrays["masked"].view(np.uint64) for p in masked.values()), np.zeros(size, np.uint64))
    found = _combined(sorted(published), sorted(shared), opened)
    own = [found[name] for name in masked]
    model = arrays_digest(arrays)
    leftover = [
        (agree(found[gone], public[there][1].tobytes(), _pair(number, gone, there, model)), there < gone)
        for gone in sorted(set(shared) - set(masked))
        for there in masked
    ]
    return _believed(mean_of(unmask(total, own, leftover), arrays), federation, number, sorted(masked), parameters)


def _believed(
    mean: Update, federation: Federation, number: int, senders: Sequence[str], parameters: SummableParameters
) -> Update:
    """`mean` if it can be one: its weight is what the senders' counts come to, its values are in range. Raises ServerError
    otherwise: masks hide who sent something else, so nobody can be excluded for it."""
    due = sum(weight_of(parameters, federation.facts(site)) for site in senders)
    largest = max((float(np.abs(value).max(initial=0)) for value in mean.arrays.values()), default=0.0)
    if mean.weight == due and largest <= MOST_WEIGHT and 0 <= mean.loss <= MOST_LOSS:
        return mean
    raise ServerError(
        f"the sum of round {number} is no mean of weights: its weight is {mean.weight:g}, where the sites' counts give "
        f"{due}, and its largest value {largest:g}. One of {', '.join(senders)} sent something else, and secure summation "
        'hides which; summation = "fixed-point" shows it'
    )


def threshold_of(parameters: Any, sites: int) -> int:
    """How many of `sites` sites must stay: what the scenario says, or two thirds, rounded up; never fewer than two."""
    return max(2, parameters.threshold or math.ceil(2 * sites / 3))


def check_summation(parameters: SummableParameters, present: int) -> None:
    """Raises ScenarioError if `present` sites in a round cannot be summed as the parameters say."""
    if parameters.summation == "float":
        return
    if present > MOST_SITES:
        raise ScenarioError(
            f"method.parameters.summation = {parameters.summation!r}: {present} sites take part in a round, and a sum in fixed "
            f"point holds {MOST_SITES} at most; lower method.parameters.fraction"
        )
    if parameters.summation == "secure" and present < (threshold := threshold_of(parameters, present)):
        raise ScenarioError(
            f'method.parameters.summation = "secure": {present} sites take part in a round, and {threshold} are needed to open '
            "its sum; "
            + ("lower method.parameters.threshold" if parameters.threshold else "it takes two sites at least")
        )


def what_colluders_learn(parameters: SummableParameters, present: int) -> str:
    """What secure summation hides from no sites that work together with the server, if `present` take part in a round."""
    threshold = threshold_of(parameters, present)
    return (
        f"secure summation opens a sum of {threshold} or more of {present} sites; {threshold - 1} of them, together with the "
        f"server, learn the update of the last one where only {threshold} stay, and {threshold} can open any update"
    )


def in_fixed_point(result: Update) -> np.ndarray:
    """A round's outcome as one vector (n,) uint64: the weighted arrays by name, then the weight, then the weighted loss."""
    weight = int(result.weight)
    return to_fixed(np.concatenate([flat(result.arrays), [1.0, result.loss]]), weight)


def mean_of(total: np.ndarray, arrays: Weights) -> Update:
    """The sum of such vectors as the weighted mean of those who sent them. arrays: names and shapes."""
    values = from_fixed(total)
    weight, loss = (float(value) for value in values[-_BEYOND:])
    divisor = weight or math.nan  # a weight of 0 has no mean
    mean = unflat((values / divisor).astype(np.float32), arrays)
    return Update(mean, {}, weight, 0, loss / divisor)


def _combined(holders: list[str], shared: list[str], opened: Mapping[str, Payload]) -> dict[str, bytes]:
    """The secret of every site that shared one, from the shares that were opened. holders: who got the shares, in order."""
    places = {name: place for place, name in enumerate(holders, start=1)}
    try:
        return {
            owner: combine({places[name]: payload.arrays[_TO + owner].tobytes() for name, payload in opened.items()})
            for owner in shared
        }
    except PayloadError as fault:
        raise ServerError(
            f"the sum cannot be opened: {fault}. One of {', '.join(sorted(opened))} sent a wrong share, and nothing tells which"
        ) from None


def _public(order: Order) -> dict[str, np.ndarray]:
    """The published keys that an order brings: site -> (2, 32) uint8."""
    if order.answer is None:
        raise ValueError("the directory of public keys is needed")
    return under(order.answer.arrays, _KEYS)


def _context(number: int, sender: str, holder: str) -> bytes:
    """What an encrypted share is bound to."""
    return f"fedprivseg share round {number} from {sender} to {holder}".encode()


def _pair(number: int, one: str, other: str, model: str) -> bytes:
    """What a pairwise mask is bound to, the same from both sides: also the weights that both train on (their SHA-256). Of sites
    that were sent different ones no sum can be opened (model inconsistency: Pasquini et al., CCS 2022)."""
    return f"fedprivseg mask round {number} of {' and '.join(sorted((one, other)))} on {model}".encode()


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)
