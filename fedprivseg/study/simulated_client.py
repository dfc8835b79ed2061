"""The site program of a simulated hospital: that of a real one with mods around its gate. They say where its folder is, what
its simulated patients do, and what goes wrong there.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedprivseg.governance.policy.consent import Register, write_register
from fedprivseg.runtime.engines.ray_cluster import STATIONS
from fedprivseg.runtime.site.client_app import OrderContext, gate, perform
from fedprivseg.study.faults.site import harmful, poisoned

WITHDREW = "withdrew"
"""A file in a site's folder: its simulated patient has withdrawn."""


def located(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod outside of the gate, where nothing of a patient is: Flower's simulation only numbers its nodes, and a site's
    program needs the path of its configuration file."""
    node = context.node_config
    if "station" not in node:
        files = sorted(Path(os.environ[STATIONS]).glob("*/station.json"))
        context = Context(
            **{**vars(context), "node_config": {**node, "station": str(files[int(node["partition-id"])])}}
        )
    return call_next(message, context)


def withdrawals(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod: while the order that the scenario names (``study.consent.withdraws``) is carried out, the first subject who was
    enrolled withdraws consent, once. A real hospital's register is changed by the hospital."""
    assert isinstance(context, OrderContext), "the gate is outside of what happens at a site"
    reply = call_next(message, context)
    site = context.site
    consent = site.scenario.study.consent
    at = None if consent is None else consent.withdraws.get(site.name)
    if context.order.action == at and not (done := site.folder.path / WITHDREW).exists():
        consents = dict(Register.read(site.folder.register).consents)
        first = site.enrolment.subjects[0]
        consents[first] = replace(consents[first], withdrawn=site.today)
        write_register(site.folder.register, consents.values())
        done.touch()
    return reply


app = ClientApp(mods=[located, gate, withdrawals])
app.train("perform")(perform)
app.__module__ = __name__  # by it a process of its own finds the program

faulty_app = ClientApp(mods=[located, harmful, gate, withdrawals, poisoned])
"""The same for a scenario with faults."""
faulty_app.train("perform")(perform)
