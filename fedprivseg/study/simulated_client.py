"""The site program of a simulated hospital: that of a real one with mods around its gate. They are what its simulated patients
do, and what goes wrong there.
"""

from __future__ import annotations

from dataclasses import replace

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedprivseg.governance.policy.consent import Register, write_register
from fedprivseg.runtime.site.client_app import OrderContext, gate, perform
from fedprivseg.study.faults.site import harmful, poisoned

WITHDREW = "withdrew"
"""A file in a site's folder: its simulated patient has withdrawn."""


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


app = ClientApp(mods=[gate, withdrawals])
app.train("perform")(perform)
app.__module__ = __name__  # by it a process of its own finds the program

faulty_app = ClientApp(mods=[harmful, gate, withdrawals, poisoned])
"""The same for a scenario with faults."""
faulty_app.train("perform")(perform)
