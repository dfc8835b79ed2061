"""What a site reads for one order: everything once, and what it has parsed before not again while its file is the same."""

from __future__ import annotations

from collections import Counter
from inspect import getattr_static

import pytest
from conftest import BRIEF, ROOT, STRICT, tiny_settings
from flwr.clientapp import ClientApp

from fedprivseg.core.config import Scenario
from fedprivseg.core.records import Payload
from fedprivseg.governance.policy import gate
from fedprivseg.governance.policy.consent import Register
from fedprivseg.governance.sitefolder import vault
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.runtime.engines import inline
from fedprivseg.runtime.server import federation
from fedprivseg.runtime.server.server_app import app as server_app
from fedprivseg.runtime.site import client_app, site_context
from fedprivseg.runtime.wire import read_order
from fedprivseg.study.preflight import cohorts_of
from fedprivseg.study.run import _prepare, load_scenario

FIRST = {"configuration": 1, "scenario": 1, "policy": 1}
"""Of a site's first order, the roll call: from then on its memory has them."""

ONCE = {"context": 1, "method": 1, "policy context": 1, "encoding": 1}
"""Of every order. Not counted are encodings that are compared and thrown away: `Payload.decode` proves that bytes hold nothing
beside the payload, and a rule of the gate measures counts and scores, whose size in bytes is limited."""


class Counts:
    """Calls, by what they do, while a site carries out an order, and at the server."""

    def __init__(self, monkeypatch):
        self.orders, self.server, self.texts = [], Counter(), []
        self._now, self._hushed, self._patch = self.server, 0, monkeypatch
        self._count(SiteConfiguration, "read", "configuration")
        self._count(Scenario, "model_validate_json", "scenario")
        self._count(site_context.SiteContext, "__init__", "context")
        self._count(site_context.SiteContext, "policy_context", "policy context")
        self._count(site_context, "resolve", "method")
        self._count(site_context, "read_agreement", "agreement")
        self._count(vault, "read_policy", "policy")
        self._count(Register, "read", "register")
        self._count(gate, "digest", "digest")
        self._count(federation, "digest", "digest")
        self._count(Payload, "encode", "encoding")
        self._hush(Payload, "decode")
        self._hush(gate, "_size")

    def _count(self, owner, name, what):
        def counted(call, *args, **more):
            if not self._hushed:
                self._now[what] += 1
            return call(*args, **more)

        self._wrap(owner, name, counted)

    def _hush(self, owner, name):
        def hushed(call, *args):
            self._hushed += 1
            try:
                return call(*args)
            finally:
                self._hushed -= 1

        self._wrap(owner, name, hushed)

    def _wrap(self, owner, name, around):
        found = getattr_static(owner, name)
        call = getattr(found, "__func__", found)

        def wrapped(*args, **more):
            return around(call, *args, **more)

        self._patch.setattr(owner, name, classmethod(wrapped) if isinstance(found, classmethod) else wrapped)

    def mod(self, message, context, call_next):
        """Outside of the gate: what is counted inside is of this order."""
        envelope = read_order(message.content)
        self.texts.append((envelope.order.action, bool(envelope.scenario_text)))
        self._now = Counter()
        try:
            return call_next(message, context)
        finally:
            self.orders.append((envelope.order.action, self._now))
            self._now = self.server


def counted(folder, phantom, *settings):
    scenario = load_scenario(ROOT / "simulations/policy-open.toml", [*tiny_settings(phantom), *BRIEF, *settings])
    _prepare(folder, scenario, phantom, cohorts_of(scenario, MnMs().read(phantom).subjects))
    with pytest.MonkeyPatch.context() as patch:
        counts = Counts(patch)
        app = ClientApp(mods=[counts.mod, client_app.gate])
        app.train("perform")(client_app.perform)
        inline.run(folder, scenario, app, server_app)
    return counts


@pytest.fixture(scope="module")
def counts(tmp_path_factory, phantom):
    """Of a run under an open policy."""
    return counted(tmp_path_factory.mktemp("open") / "run", phantom)


def test_everything_is_read_once_an_order(counts):
    assert len(counts.orders) > 15
    for action, found in counts.orders:
        first = FIRST if action == "describe" else {}
        assert found == ONCE | first | {"digest": 1}, action


def test_what_may_change_before_the_answer_is_read_when_it_is_decided(tmp_path, phantom):
    for action, found in counted(tmp_path / "run", phantom, *STRICT).orders:
        # A register is read when subjects are enrolled, too. What is encrypted has two names: the payload's, and that of the
        # bytes that travel.
        first = FIRST if action == "describe" else {}
        asked = {"agreement": 1, "register": 2 if first else 1, "digest": 2}
        assert found == ONCE | first | asked, action


def test_the_server_names_and_encodes_once_what_it_gets_and_sends(counts):
    orders = Counter(action for action, _ in counts.orders)
    assert counts.server["digest"] == 1 + sum(orders.values()), "the scenario has a name too"
    # Each answer when it is sent, and each site's measures when they are kept: what came is kept as it came.
    assert counts.server["encoding"] == orders["decode"] + orders["measure"]


def test_a_scenario_travels_in_the_roll_call_alone(counts):
    assert set(counts.texts) == {("describe", True)} | {
        (action, False) for action, _ in counts.orders if action != "describe"
    }
