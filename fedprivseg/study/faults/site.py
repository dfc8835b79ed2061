"""What a simulated site does wrong, and what happens to its machine, as mods around its gate.

A site that means harm has a program of its own: it lets no gate see what it sends, and signs it with its own key. That is a mod
outside of the gate. A site that was poisoned keeps to the rules: what it sends passes its gate. That is a mod inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedprivseg.core.fault_config import FaultConfig
from fedprivseg.core.files import write_text
from fedprivseg.core.records import Payload, digest
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.crypto.identity import SiteKey, statement
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.runtime.site.client_app import OrderContext
from fedprivseg.runtime.wire import Envelope, read_order
from fedprivseg.study.faults.machine import full_disk
from fedprivseg.study.faults.occurrences import Occurrences

_HARM = ("nan", "oversize", "shape")
_MACHINE = ("full-disk", "clock")

OVERSIZE = 1 << 26
"""Bytes of an array that is too large."""

POISON = -10.0
"""What a poisoned site makes of how far each value lies from the mean."""


def harmful(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod outside of the gate: the site's machine fails, or it sends something else than what its gate released."""
    home = SiteConfiguration.find(context).folder
    envelope = read_order(message.content)
    occurrences = _occurrences(home, envelope)
    with ExitStack() as machine:
        if (fault := occurrences.next(home.name, envelope.order, _MACHINE)) is not None:
            machine.enter_context(_broken(fault, home))
        reply = call_next(message, context)
    if "released" not in reply.content or reply.content.config_records["released"]["encrypted_to"]:
        return reply  # what is encrypted to the server nobody can change, not even who sent it
    if (fault := occurrences.next(home.name, envelope.order, _HARM)) is None:
        return reply
    return _resent(reply, fault, home, envelope)


def poisoned(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod inside of the gate: what the site made is not what it should be, and looks like it."""
    reply = call_next(message, context)
    assert isinstance(context, OrderContext), "the gate is outside of what happens at a site"
    site = context.site
    run = RunFolder(site.folder.path.parents[1])
    occurrences = Occurrences(run.faults, site.scenario.faults)
    if occurrences.next(site.name, context.order, ("poison",)) is not None:
        body = bytes(reply.content.config_records["payload"]["body"])  # type: ignore[arg-type]
        payload = Payload.decode(body)
        arrays = {name: _poison(name, array) for name, array in payload.arrays.items()}
        reply.content["payload"] = ConfigRecord({"body": replace(payload, arrays=arrays).encode()})
    return reply


def _occurrences(home: Path, envelope: Envelope) -> Occurrences:
    """The faults of the scenario in which a site takes part; before it knows one, of the one that comes."""
    from fedprivseg.core.config import Scenario

    path = SiteFolder(home).scenario
    text = path.read_text() if path.exists() else envelope.scenario_text
    return Occurrences(RunFolder(home.parents[1]).faults, Scenario.model_validate_json(text).faults if text else ())


def _broken(fault: FaultConfig, home: Path) -> AbstractContextManager[None]:
    return full_disk(home) if fault.kind == "full-disk" else _other_day(home, timedelta(seconds=fault.seconds))


@contextmanager
def _other_day(home: Path, jump: timedelta) -> Iterator[None]:
    """The site counts by another day than it is: its clock jumped by `jump`."""
    path = SiteFolder(home).configuration
    right = path.read_text()
    found = SiteConfiguration.read(path)
    today = (found.today or date.today()) + jump
    write_text(path, found.model_copy(update={"today": today}).model_dump_json(indent=1))
    try:
        yield
    finally:
        write_text(path, right)


def _resent(reply: Message, fault: FaultConfig, home: Path, envelope: Envelope) -> Message:
    """The reply with another payload in it, rightly signed."""
    fields = dict(reply.content.config_records["released"])
    payload = Payload.decode(bytes(fields["body"]))  # type: ignore[arg-type]
    first, *others = sorted(payload.arrays)
    arrays = {first: _harmed(payload.arrays[first], fault.kind), **{name: payload.arrays[name] for name in others}}
    body = replace(payload, arrays=arrays).encode()
    order = envelope.order
    said = statement(envelope.run_id, home.name, order.action, order.number, digest(body))
    signature = SiteKey.at(SiteFolder(home).key).sign(said)
    reply.content = RecordDict({"released": ConfigRecord({**fields, "body": body, "signature": signature})})
    return reply


def _harmed(array: np.ndarray, kind: str) -> np.ndarray:
    if kind == "nan":
        return (
            np.full_like(array, np.nan) if array.dtype.kind == "f" else np.full_like(array, np.iinfo(array.dtype).max)
        )
    if kind == "shape":
        return np.concatenate([array.ravel(), array.ravel()[:1]])
    return np.resize(array, (max(2, OVERSIZE // max(1, array.nbytes)), *array.shape))


def _poison(name: str, array: np.ndarray) -> np.ndarray:
    """Values on the other side of their mean and further away; what must not be below 0, and what counts, is left."""
    if array.dtype.kind != "f" or name.endswith("running_var") or name == "numbers":
        return array
    wide = array.astype(np.float64)
    return (wide.mean() + POISON * (wide - wide.mean())).astype(array.dtype)
