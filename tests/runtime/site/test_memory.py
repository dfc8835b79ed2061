"""What a site remembers between orders: nothing that a file says otherwise, nothing of another site, nothing elsewhere."""

from __future__ import annotations

import copy
import os
import pickle

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedprivseg.core.records import Order, digest
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.policy import profile
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.imaging.splits import Cohort
from fedprivseg.runtime.engines.inline import InlineGrid
from fedprivseg.runtime.site import client_app as site_app
from fedprivseg.runtime.site.memory import Memory
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.wire import MESSAGE_TYPE, Envelope, Refused, Released, read_reply, write_order
from fedprivseg.study.run import _prepare


class Nodes:
    """Three sites in one process, each a node with a state of its own, as an engine holds them."""

    def __init__(self, run, scenario):
        InlineGrid(site_app.app, [])  # sets the identity of the task that builds messages
        self.run, self.text, self.number = run, scenario.model_dump_json(), 0
        self.contexts = {
            site.name: Context(1, 2, {"station": str(self.home(site.name).configuration)}, RecordDict(), {})
            for site in scenario.sites
        }

    def home(self, site) -> SiteFolder:
        return SiteFolder(self.run / "sites" / site)

    def ask(self, site="centre1"):
        server = self.run / "server"
        head = ledger.Ledger(server / "ledger.jsonl", SiteKey.load(server / "key.pem"), "server").checkpoint()
        envelope = Envelope(Order("describe"), "run", digest(self.text.encode()), head, scenario_text=self.text)
        return read_reply(site_app.app(Message(write_order(envelope), 2, MESSAGE_TYPE), self.contexts[site]).content)

    def memory(self, site="centre1") -> Memory:
        return Memory.of(self.contexts[site])


@pytest.fixture
def nodes(tmp_path, tiny_scenario, phantom):
    _prepare(tmp_path / "run", tiny_scenario, phantom, {site.name: Cohort((), ()) for site in tiny_scenario.sites})
    return Nodes(tmp_path / "run", tiny_scenario)


def _same_size_same_time(path, old, new):
    """Change the file so that neither its size nor its times tell."""
    before = path.stat()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_a_policy_that_changes_between_two_orders_counts_for_the_second(nodes):
    policy = nodes.home("centre1").policy
    assert isinstance(nodes.ask(), Released)
    _same_size_same_time(policy, "max_level = 3", "max_level = 1")
    refused = nodes.ask()
    assert isinstance(refused, Refused)
    assert refused.rule == "level.too-high"
    _same_size_same_time(policy, "max_level = 1", "max_level = 3")
    assert isinstance(nodes.ask(), Released)


@pytest.mark.parametrize("damage", ["gone", "no file", "nonsense"])
def test_a_policy_that_cannot_be_read_any_more_lets_nothing_out(nodes, damage):
    policy = nodes.home("centre1").policy
    assert isinstance(nodes.ask(), Released)
    whole = policy.read_text()
    policy.unlink()
    if damage == "no file":
        policy.mkdir()
    elif damage == "nonsense":
        policy.write_text("max_level = ")
    for _ in range(2):
        refused = nodes.ask()
        assert isinstance(refused, Refused)
        assert refused.rule == "policy.absent"
    if damage != "no file":
        policy.write_text(whole)
        assert isinstance(nodes.ask(), Released)


def test_what_did_not_change_is_parsed_once(nodes, monkeypatch):
    parsed = []
    parse = profile.parse_policy
    monkeypatch.setattr(profile, "parse_policy", lambda *args: parsed.append(args[1]) or parse(*args))
    for _ in range(3):
        assert isinstance(nodes.ask(), Released)
    assert len(parsed) == 1
    nodes.home("centre1").policy.write_text(nodes.home("centre1").policy.read_text() + "\n")
    assert isinstance(nodes.ask(), Released)
    assert len(parsed) == 2


def test_a_key_that_was_exchanged_is_not_the_one_remembered(nodes):
    """The ledger was begun under another key: nothing leaves."""
    assert isinstance(nodes.ask(), Released)
    key = nodes.home("centre1").key
    key.unlink()
    SiteKey.create(key)
    refused = nodes.ask()
    assert isinstance(refused, Refused)
    assert refused.rule == "ledger.unwritable"


def test_a_site_remembers_nothing_of_another_that_the_same_process_serves(nodes):
    """Ray reuses a worker for the next hospital."""
    for site in ("centre1", "centre2", "centre1", "centre2"):
        assert nodes.ask(site).site == site
    one, other = nodes.memory("centre1"), nodes.memory("centre2")
    assert one is not other
    for memory, site in ((one, "centre1"), (other, "centre2")):
        assert memory.ledger.site == site
        assert all(f"/sites/{site}/" in str(place) for place in memory._kept), "keyed by files of its own folder"
    keys = {memory.ledger.public_hex for memory in (one, other)}
    assert keys == {SiteKey.load(nodes.home(site).key).public_hex for site in ("centre1", "centre2")}
    nodes.home("centre1").policy.unlink()
    assert isinstance(nodes.ask("centre1"), Refused)
    assert isinstance(nodes.ask("centre2"), Released)


@pytest.mark.parametrize("copied", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy], ids=["pickle", "copy"])
def test_a_memory_does_not_travel(nodes, copied):
    nodes.ask()
    assert nodes.memory()._kept
    assert nodes.memory().ledger is not None
    state = copied(nodes.contexts["centre1"].state)
    context = Context(1, 2, {}, state, {})
    assert not Memory.of(context)._kept
    assert Memory.of(context).ledger is None
    assert isinstance(nodes.ask(), Released)


def test_what_flower_made_of_a_memory_is_none(nodes):
    """A deployed node's state comes back as plain records."""
    context = nodes.contexts["centre1"]
    nodes.ask()
    context.state = RecordDict({name: ConfigRecord() for name in context.state})
    assert isinstance(nodes.ask(), Released)
    assert type(Memory.of(context)) is Memory


def test_a_line_that_somebody_else_wrote_is_not_written_over(nodes):
    home = nodes.home("centre1")
    nodes.ask()
    ledger.Ledger(home.ledger, SiteKey.load(home.key), "centre1").append("storage", {"what": "checked"})
    nodes.ask()
    assert [line.event for line in ledger.read(home.ledger)][-3:] == ["release", "storage", "release"]
    assert ledger.verify(home.ledger).notes == ()


def test_a_destruction_that_began_meanwhile_ends_it(nodes):
    home = nodes.home("centre1")
    assert isinstance(nodes.ask(), Released)
    book = ledger.Ledger(home.ledger, SiteKey.load(home.key), "centre1")
    book.append("destruction", {"what": "carried out"})
    for _ in range(2):
        refused = nodes.ask()
        assert isinstance(refused, Refused)
        assert refused.rule == "destruction.begun"


def test_lines_of_a_stage_come_to_the_disk_together_where_the_policy_lets_them(nodes, tiny_scenario):
    home = nodes.home("centre1")
    policy = home.policy
    text = policy.read_text()
    assert 'ledger = "line"' in text, "a site whose policy says nothing has every line on the disk first"
    policy.write_text(text.replace('ledger = "line"', 'ledger = "stage"'))
    assert isinstance(nodes.ask(), Released)
    assert isinstance(nodes.ask(), Released)
    (note,) = ledger.verify(home.ledger).notes
    assert "ahead of the checkpoint" in note
    site = SiteContext(SiteConfiguration.read(home.configuration), tiny_scenario, nodes.memory())
    site.begin_line(site.ledger(), "another action", site.policy)
    assert ledger.verify(home.ledger).notes == ()
    site.ledger().append("refusal", {})
    assert ledger.verify(home.ledger).notes != ()
    policy.write_text(text)
    assert isinstance(nodes.ask(), Released)
    assert ledger.verify(home.ledger).notes == (), "a policy that became stricter counts at once"
    assert "grouped" not in ledger.read(home.ledger)[-1].facts
