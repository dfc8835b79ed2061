"""The site program: a Flower `ClientApp` whose first, outermost mod is the gate.

Inside the gate a method's action makes one payload. Outside it there is only a signed release of exactly what the method
declares, a refusal with its rule, or an error's type with the id of the site's own log entry. All that goes beside a payload is
written here and not by a method: names of errors are of a closed set, seconds and memory are rounded. There is no module-level
state: Ray reuses workers between sites.
"""

from __future__ import annotations

import math
import resource
import sys
import time
import traceback
import uuid
from dataclasses import replace

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedprivseg.core.compute import threads
from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import LedgerError, named
from fedprivseg.core.expected import DESCRIBE, DESCRIPTION, Expected
from fedprivseg.core.kinds import STATUS
from fedprivseg.core.records import Order, Payload
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.checkpoints import Checkpoint
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.policy import gate as policy
from fedprivseg.governance.policy.context import PolicyContext
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import ERRORS, Notes
from fedprivseg.methods import Method, resolve
from fedprivseg.protections import protected
from fedprivseg.runtime.site.attribution import counted, owners_of
from fedprivseg.runtime.site.rules import RECORDS, Rules
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.runtime.wire import UNKNOWN, Failed, Refused, Released, Reply, read_order, write_reply


def gate(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """The outermost mod: whatever happens inside, only a signed release, a refusal or an error's type comes out."""
    start = time.perf_counter()
    station = None
    try:
        station = SiteConfiguration.find(context)
        reply = _through_gate(station, message, context, call_next, start)
    except Exception as fault:  # the wall: an exception's text may hold a path, a patient or an intensity
        reply = Failed(station.site.name if station else UNKNOWN, named(type(fault)), _log(station))
    return Message(write_reply(reply), reply_to=message)


def _through_gate(
    station: SiteConfiguration, message: Message, context: Context, call_next: ClientAppCallable, start: float
) -> Reply:
    envelope = read_order(message.content)
    order = envelope.order
    shown = Checkpoint.read(
        envelope.head, station.server_key
    )  # who cannot show it is not the server that the site knows
    scenario = Scenario.model_validate_json(envelope.scenario)
    method = resolve(scenario.method)
    exports = method.declared
    expected = _expected(order, method, scenario)  # before the action has seen an image
    rules = Rules(station, scenario)
    if rules.closed:
        # Nothing is computed for an order that nothing may answer; the gate refuses an empty payload in its place.
        body = Payload(min(exports), station.site.name, "describe", {}).encode()
    else:
        inner = call_next(message, context)
        only_payload = list(inner.content) == ["payload"]
        body = bytes(inner.content.config_records["payload"]["body"]) if only_payload else b""  # type: ignore[arg-type]
    key = SiteKey.at(SiteFolder(station.folder).key)
    rules.live(order.action)
    standing = _standing(station, scenario, key, envelope.card, rules.notes)
    try:
        ledger = Ledger(station.folder / "ledger.jsonl", key, station.site.name)
        if standing.policy is not None and standing.unreadable != RECORDS:
            rules.record_intake(ledger, key)
    except LedgerError as fault:
        reason = f"The ledger could not be opened ({named(type(fault))}); what is not recorded does not leave."
        return Refused(station.site.name, "ledger.unwritable", reason, head="")
    own_gate = policy.Gate(exports, station.site.name, standing)

    def owners(payload: Payload) -> list[str]:
        return owners_of(payload, order, method, rules, station.folder, key)

    def declared() -> Expected | None:
        return None if expected is None else counted(expected, order, method, rules, station.folder)

    verdict = own_gate.release(
        body,
        ledger,
        key,
        order.action,
        run_id=envelope.run_id,
        number=order.number,
        expected=declared,
        shown=shown,
        owners=owners,
    )
    if isinstance(verdict, policy.Refused):
        return Refused(station.site.name, verdict.decision.rule, verdict.decision.reason, ledger.head())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Released(
        body=verdict.body,
        signature=verdict.signature,
        public_key=key.public_hex,
        head=ledger.head(),
        seconds=math.ceil((time.perf_counter() - start) * 100) / 100,
        peak_rss_mb=float(math.ceil(peak)),
        encrypted_to=verdict.encrypted_to,
        site=station.site.name,
    )


def _expected(order: Order, method: Method, scenario: Scenario) -> Expected | None:
    """What may answer `order`: what the method declares, as it is under the scenario's protections."""
    if order.action == DESCRIBE:
        return DESCRIPTION
    declared = method.expected(order, scenario.scope)
    return None if declared is None else protected(scenario.protections, declared)


def _standing(station: SiteConfiguration, scenario: Scenario, key: SiteKey, card: str, notes: Notes) -> PolicyContext:
    """Where the site stands now: read anew, so that a policy that was changed while the order was carried out takes effect on
    its answer. If the rules themselves fail the site has none, and nothing leaves; its own log says what failed."""
    rules = Rules(station, scenario, notes)
    try:
        return rules.standing(key.public_hex, card)
    except Exception:
        _log(station)
        return PolicyContext(None, rules.today, key.public_hex)


app = ClientApp(mods=[gate])


@app.train("perform")
def perform(message: Message, context: Context) -> Message:
    """Carry out one order and hand its payload to the gate."""
    envelope = read_order(message.content)
    scenario = Scenario.model_validate_json(envelope.scenario)
    with threads(scenario.resources.site_threads):
        bench = SiteRuntime(SiteConfiguration.find(context), scenario)
        payload = _levelled(bench, _carry_out(bench, scenario, envelope.order))
    content = RecordDict({"payload": ConfigRecord({"body": payload.encode()})})
    return Message(content, reply_to=message)


def _carry_out(bench: SiteRuntime, scenario: Scenario, order: Order) -> Payload:
    if order.action == DESCRIBE:
        return Payload(STATUS, bench.name, "describe", bench.describe())
    method = resolve(scenario.method)
    if order.action not in method.actions:
        raise ValueError(f"{method.name} has no action {order.action!r}; it has {', '.join(sorted(method.actions))}")
    return _protected(bench, order, method.actions[order.action](method, bench, _opened(bench, order)))


def _levelled(bench: SiteRuntime, payload: Payload) -> Payload:
    """The payload with the level that this site's rules assign to it (5.5). A method does not say how sensitive data is."""
    return replace(payload, level=bench.level(payload.kind))


def _protected(bench: SiteRuntime, order: Order, payload: Payload) -> Payload:
    """The payload with its codes under the scenario's protections. No method is asked whether it wants that."""
    if not payload.kind.protectable:
        return payload
    arrays, history = dict(payload.arrays), payload.history
    for name, codes in sorted(payload.arrays.items()):  # the order of `protected`
        arrays[name], done = bench.shield.apply(payload.kind, codes, (order.action, order.number, name))
        history += done
    return replace(payload, arrays=arrays, history=history)


def _opened(bench: SiteRuntime, order: Order) -> Order:
    """The order with the codes of its answer as the site's own decoder knows them."""
    if order.answer is None or not order.answer.kind.protectable:
        return order
    arrays = {name: bench.opened(order.answer.kind, codes) for name, codes in order.answer.arrays.items()}
    return replace(order, answer=replace(order.answer, arrays=arrays))


def _log(station: SiteConfiguration | None) -> str:
    """Write the current exception into the site's own log and ledger; returns its id, all that others are told.

    A site that cannot even write its log still answers, with an id that says so: a second exception must not leave either.
    What is to be sealed and cannot be is not written.
    """
    log_id = uuid.uuid4().hex[:12]
    try:
        assert station is not None
        kind = sys.exc_info()[0]
        entry = f"[{log_id}] {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n{traceback.format_exc()}\n"
        try:
            Notes(station.folder).add(ERRORS, entry)
        finally:  # the ledger tells type and id whether or not the log could be written
            key = SiteKey.at(SiteFolder(station.folder).key)
            facts = {"error": named(kind) if kind else "unknown", "log": log_id}
            Ledger(station.folder / "ledger.jsonl", key, station.site.name).append("error", facts)
    except Exception:
        return f"unlogged-{log_id}"
    return log_id
