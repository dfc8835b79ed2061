"""The site program: a Flower `ClientApp` whose first, outermost mod is the gate.

Inside the gate a method's action makes one payload. Outside it there is only a signed release of exactly what the method
declares, a refusal with its rule, or an error's type with the id of the site's own log entry. All that goes beside a payload is
written here and not by a method: names of errors are of a closed set, seconds and memory are rounded. There is no module-level
state: Ray reuses workers between sites, and what the gate opened for one order goes inwards with Flower's context.
"""

from __future__ import annotations

import math
import resource
import sys
import time
import traceback
import uuid
from dataclasses import replace
from typing import final

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedprivseg.core.compute import threads
from fedprivseg.core.errors import LedgerError, ModelRefused, named
from fedprivseg.core.expected import DESCRIBE, DESCRIPTION, Expected
from fedprivseg.core.kinds import METRIC, STATUS
from fedprivseg.core.records import Order, Payload
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.checkpoints import Checkpoint
from fedprivseg.governance.ledger.format import MODEL, Fact
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.policy import gate as policy
from fedprivseg.governance.policy.policy_context import PolicyContext
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import ERRORS, Notes
from fedprivseg.protections import protected
from fedprivseg.runtime.announcement import announced_model
from fedprivseg.runtime.site.attribution import counted, owners_of
from fedprivseg.runtime.site.memory import Memory
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.runtime.wire import UNKNOWN, Envelope, Failed, Refused, Released, Reply, read_order, write_reply


@final
class OrderContext(Context):
    """Flower's context inside the gate, with what the gate opened for this order.

    Attributes:
        site: the site's context.
        order: what is asked.
    """

    def __init__(self, context: Context, site: SiteContext, order: Order) -> None:
        super().__init__(**vars(context))
        self.site, self.order = site, order


def gate(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """The outermost mod: whatever happens inside, only a signed release, a refusal or an error's type comes out."""
    start = time.perf_counter()
    configuration = None
    try:
        memory = Memory.of(context)
        configuration = memory.recall(lambda: SiteConfiguration.find(context), SiteConfiguration.place(context))
        envelope = read_order(message.content)
        # Who cannot show a checkpoint of it is not the server that the site knows.
        shown = Checkpoint.read(envelope.head, configuration.server_key)
        site = SiteContext.open(configuration, envelope, memory)
        expected = _expected(site, envelope.order)  # before the action has seen an image
        model = ""
        try:
            model = _announced(site, envelope)
            if site.closed:
                # Nothing is computed for an order that nothing may answer; the gate refuses an empty payload in its place.
                body = Payload(min(site.method.declared), site.name, "describe", {}).encode()
            else:
                inner = call_next(message, OrderContext(context, site, envelope.order))
                only_payload = list(inner.content) == ["payload"]
                body = bytes(inner.content["payload"]["body"]) if only_payload else b""  # type: ignore[arg-type]
            reply = _decided(site, envelope, body, expected, shown, model, start)
        except ModelRefused as refusal:
            reply = _turned_down(site, envelope, refusal, shown, model)
    except Exception as fault:  # the wall: an exception's text may hold a path, a patient or an intensity
        reply = Failed(configuration.site.name if configuration else UNKNOWN, named(type(fault)), _log(configuration))
    return Message(write_reply(reply), reply_to=message)


def _announced(site: SiteContext, envelope: Envelope) -> str:
    """The digest of the weights that came with the order; empty if none did. Raises ModelRefused if the server has not
    announced them to every site."""
    arrays = site.method.announced(envelope.order)
    if arrays is None:
        return ""
    known = site.configuration.server_key
    return announced_model(known, envelope.run_id, envelope.order, envelope.announced, arrays)


def _turned_down(site: SiteContext, envelope: Envelope, refusal: ModelRefused, shown: Checkpoint, model: str) -> Reply:
    """The refusal of a model, in the ledger and for the server."""
    order = envelope.order
    facts: dict[str, Fact] = {
        "action": order.action,
        "clause": refusal.clause,
        "decision": "deny",
        "number": order.number,
        "reason": refusal.reason,
        "rule": refusal.rule,
        "run": envelope.run_id,
        "server_checkpoint": shown.as_fact(),
        **({MODEL: model} if model else {}),
    }
    ledger = site.ledger()
    site.begin_line(ledger, order.action, site.policy)
    ledger.append("refusal", facts)
    return Refused(site.name, refusal.rule, refusal.reason, ledger.checkpoint())


def _decided(
    site: SiteContext,
    envelope: Envelope,
    body: bytes,
    expected: Expected | None,
    shown: Checkpoint,
    model: str,
    start: float,
) -> Reply:
    """What the gate makes of the payload in `body`, under the site's policy as it is now."""
    order = envelope.order
    context = _policy_context(site, envelope.card)
    try:
        ledger = site.ledger()
        site.begin_line(ledger, order.action, context.policy)
        if context.policy is not None and not context.enrolled.unreadable:
            site.record_enrolment(ledger)
    except LedgerError as fault:
        reason = f"The ledger could not be opened ({named(type(fault))}); what is not recorded does not leave."
        return Refused(site.name, "ledger.unwritable", reason, head="")
    verdict = policy.Gate(site.method.declared, site.name, context).release(
        body,
        ledger,
        site.key,
        order.action,
        run_id=envelope.run_id,
        number=order.number,
        expected=lambda: expected if expected is None or context.closed else counted(expected, order, site),
        shown=shown,
        model=model,
        owners=lambda payload: [] if context.closed else owners_of(payload, order, site),
    )
    if expected is None or expected.kind == METRIC:  # with its measures a site's part in a run ends
        ledger.commit()
    if isinstance(verdict, policy.Refused):
        return Refused(site.name, verdict.decision.rule, verdict.decision.reason, ledger.checkpoint())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Released(
        body=verdict.body,
        signature=verdict.signature,
        public_key=site.key.public_hex,
        head=ledger.checkpoint(),
        seconds=math.ceil((time.perf_counter() - start) * 100) / 100,
        peak_rss_mb=float(math.ceil(peak)),
        encrypted_to=verdict.encrypted_to,
        site=site.name,
    )


def _expected(site: SiteContext, order: Order) -> Expected | None:
    """What may answer `order`: what the method declares, as it is under the scenario's protections."""
    if order.action == DESCRIBE:
        return DESCRIPTION
    declared = site.method.expected(order, site.scenario.scope)
    return None if declared is None else protected(site.scenario.protections, declared)


def _policy_context(site: SiteContext, card: str) -> PolicyContext:
    """The site's policy context. If making it fails the site has none, and nothing leaves; its own log says what failed."""
    try:
        return site.policy_context(card)
    except Exception:
        _log(site.configuration)
        return PolicyContext(None, site.today)


app = ClientApp(mods=[gate])
app.__module__ = __name__  # by it a process of its own finds the program


@app.train("perform")
def perform(message: Message, context: Context) -> Message:
    """Carry out one order and hand its payload to the gate."""
    assert isinstance(context, OrderContext), "the gate is the only way to an action"
    site = context.site
    with threads(site.scenario.resources.site_threads):
        payload = _carry_out(site, context.order)
        assert site.cohort is not None  # who takes part is settled before the level of it is
        # A method does not say how sensitive data is: the site's rules do (5.5).
        payload = replace(payload, level=site.level(payload.kind))
    content = RecordDict({"payload": ConfigRecord({"body": payload.encode()})})
    return Message(content, reply_to=message)


def _carry_out(site: SiteContext, order: Order) -> Payload:
    runtime, method = SiteRuntime(site), site.method
    if order.action == DESCRIBE:
        return Payload(STATUS, site.name, "describe", runtime.describe())
    if order.action not in method.actions:
        raise ValueError(f"{method.name} has no action {order.action!r}; it has {', '.join(sorted(method.actions))}")
    return _protected(runtime, order, method.actions[order.action](method, runtime, _opened(runtime, order)))


def _protected(runtime: SiteRuntime, order: Order, payload: Payload) -> Payload:
    """The payload with its codes under the scenario's protections. No method is asked whether it wants that."""
    if not payload.kind.protectable:
        return payload
    arrays, history = dict(payload.arrays), payload.history
    for name, codes in sorted(payload.arrays.items()):  # the order of `protected`
        arrays[name], done = runtime.shield.apply(payload.kind, codes, (order.action, order.number, name))
        history += done
    return replace(payload, arrays=arrays, history=history)


def _opened(runtime: SiteRuntime, order: Order) -> Order:
    """The order with the codes of its answer as the site's own decoder knows them."""
    if order.answer is None or not order.answer.kind.protectable:
        return order
    arrays = {name: runtime.opened(order.answer.kind, codes) for name, codes in order.answer.arrays.items()}
    return replace(order, answer=replace(order.answer, arrays=arrays))


def _log(configuration: SiteConfiguration | None) -> str:
    """Write the current exception into the site's own log and ledger; returns its id, all that others are told.

    A site that cannot even write its log still answers, with an id that says so: a second exception must not leave either.
    What is to be encrypted and cannot be is not written.
    """
    log_id = uuid.uuid4().hex[:12]
    try:
        assert configuration is not None
        kind = sys.exc_info()[0]
        folder = SiteFolder(configuration.folder)
        entry = f"[{log_id}] {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n{traceback.format_exc()}\n"
        try:
            Notes(folder.path).add(ERRORS, entry)
        finally:  # the ledger tells type and id whether or not the log could be written
            facts = {"error": named(kind) if kind else "unknown", "log": log_id}
            Ledger(folder.ledger, SiteKey.at(folder.key), configuration.site.name).append("error", facts)
    except Exception:
        return f"unlogged-{log_id}"
    return log_id
