"""The federation over a grid of fake sites: no reply ends a run that still has its quorum."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, tiny_settings
from fakes import FakeGrid, FakeSite, blocks
from flwr.app import ConfigRecord, Error, RecordDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save
from toy import SITES, STREAMS, Toy

from fedprivseg.core.accounts import begin_again
from fedprivseg.core.errors import QuorumError, RunError, SiteError
from fedprivseg.core.records import Payload
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.crypto.identity import canonical
from fedprivseg.governance.ledger import ledger
from fedprivseg.protections import protected
from fedprivseg.runtime.server import exchange
from fedprivseg.runtime.server.federation import GridFederation
from fedprivseg.runtime.wire import Failed, Refused, write_reply
from fedprivseg.study.run import load_scenario

HOSTILE = "centre3"
ORDERS = ("describe", "fit", *STREAMS, "measure")


@pytest.fixture(autouse=True, scope="module")
def _no_power_cuts():
    """Hundreds of ledgers are written here, and none has to outlive a power cut; and nobody waits to send an order again."""
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", lambda descriptor: None)
    patch.setattr(exchange, "FIRST_PAUSE_S", 0.001)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def scenario():
    settings = [*tiny_settings(Path("nowhere")), "quorum=2", "deadline_s=0.05"]
    return load_scenario(ROOT / "simulations" / "quickstart.toml", settings)


def run(scenario, folder, tamper=None, method=None):
    """A run in `folder`, begun or gone on with: (what the method returned, the federation, the grid)."""
    method = method or Toy()
    sites = [FakeSite(name, blocks(), folder / "sites") for name in SITES]
    grid = FakeGrid(method, sites, folder / "sites", tamper=tamper)
    federation = GridFederation(grid, scenario, RunFolder(folder).server, "run", "cpu")
    return method.conduct(federation), federation, grid


def statuses(folder):
    content = json.loads((folder / "server" / "accounts.json").read_text())
    return {name: account["status"] for name, account in content["sites"].items()}


def at(action, change, site=HOSTILE):
    """A tamper that puts ``change(reply, sign)`` in the place of what `site` answers to `action`, and leaves the rest."""

    def tamper(name, order, reply, sign):
        return change(reply, sign) if (name, order.action) == (site, action) else [write_reply(reply)]

    return tamper


def altered(**changes):
    """That a payload is sent with other fields, rightly signed."""
    return lambda reply, sign: [write_reply(sign(replace(Payload.decode(reply.body), **changes)))]


def filled(value, *names):
    """That the arrays of a payload, or those called `names`, hold `value` everywhere."""

    def change(reply, sign):
        payload = Payload.decode(reply.body)
        arrays = {
            name: np.full_like(array, value) if not names or name in names else array
            for name, array in payload.arrays.items()
        }
        return [write_reply(sign(replace(payload, arrays=arrays)))]

    return change


def cut(*names):
    """That arrays lack their last row."""

    def change(reply, sign):
        payload = Payload.decode(reply.body)
        arrays = {name: array[:-1] if name in names else array for name, array in payload.arrays.items()}
        return [write_reply(sign(replace(payload, arrays=arrays)))]

    return change


def fields(**changes):
    """That a reply has other fields around its payload."""
    return lambda reply, sign: [RecordDict({"released": ConfigRecord({**vars(reply), **changes})})]


def headed(**changes):
    """That the head of its ledger says something else, under the site's own signature."""

    def change(reply, sign):
        head = json.loads(reply.head)
        del head["signature"]
        return [write_reply(sign(reply.body, head=canonical({**head, **changes, "signature": ""}).decode()))]

    return change


def sends(*contents):
    return lambda reply, sign: list(contents)


FAILED = sends(write_reply(Failed(HOSTILE, "KeyError", "1f")))
BAD = {
    "body is text": ("fit", fields(body="x"), "field 'body'"),
    "seconds are text": ("fit", fields(seconds="1.0"), "field 'seconds'"),
    "seconds are no number": ("fit", fields(seconds=float("nan")), "field 'seconds'"),
    "seconds are negative": ("fit", fields(seconds=-1.0), "field 'seconds'"),
    "seconds are huge": ("fit", fields(seconds=1e308), "field 'seconds'"),
    "memory is infinite": ("fit", fields(peak_rss_mb=float("inf")), "field 'peak_rss_mb'"),
    "site is a number": ("fit", fields(site=1.5), "field 'site'"),
    "site is another": ("fit", fields(site="centre1"), "names another site"),
    "rule is a list": (
        "fit",
        sends(RecordDict({"refused": ConfigRecord({"site": HOSTILE, "rule": ["x"], "reason": "", "head": ""})})),
        "field 'rule'",
    ),
    "rule is a novel": ("fit", sends(write_reply(Refused(HOSTILE, "x" * 10_000, "", ""))), "field 'rule'"),
    "error is a sentence": ("fit", sends(write_reply(Failed(HOSTILE, "patient A1 failed", "1f"))), "field 'error'"),
    "two replies in one": (
        "fit",
        sends(RecordDict({"refused": ConfigRecord(), "failed": ConfigRecord()})),
        "one record of",
    ),
    "head is huge": ("fit", fields(head="{" * 10_000), "field 'head'"),
    "head tells of no lines": ("fit", headed(lines=-1), "checkpoint"),
    "head's hash is a novel": ("fit", headed(hash="x" * 500), "checkpoint"),
    "history is long": ("fit", altered(history=("step",) * 33), "33 of them differ, are missing or are more"),
    "history has other words": (
        "send_masks",
        altered(history=("\x1b[2J",)),
        "1 of them differ, are missing or are more",
    ),
    "level does not exist": ("fit", altered(level=9), "levels are 1 to 5"),
    "names of arrays": ("fit", altered(arrays={"[/red]\x1b" * 50: np.zeros(1)}), "1 of the arrays have names"),
    "too many arrays": (
        "fit",
        altered(arrays={str(n): np.zeros(1, np.uint8) for n in range(999)}),
        "999 of the arrays",
    ),
    "status out of range": ("fit", filled(7), "beyond what is declared, from 0 to 1"),
    "counts are negative": ("describe", filled(-1), "beyond what is declared"),
    "counts are huge": ("describe", filled(2**62), "beyond what is declared"),
    "subjects without slices": ("describe", filled(0, "slices_train"), "0 slices of 3 subjects"),
    "more slices than scans have": ("describe", filled(9_000, "slices_test"), "a subject has 1 to 1000"),
    "codes are huge": ("send_images", filled(65504.0), "beyond what is declared, from -32768 to 32768"),
    "no rows": ("send_images", altered(arrays={"codes": np.zeros((0, 2, 2), np.float16)}), "holds 0 rows"),
    "fewer codes of masks than of images": ("send_masks", cut("codes"), "holds 7 rows"),
    "more shards than slices": ("send_masks", altered(shards=3), "it is one of 2"),
    "Dice above 1": ("measure", filled(1.5, "dice"), "'dice' holds values beyond what is declared"),
    "a distance below 0": ("measure", filled(-1.0, "hd95_mm"), "'hd95_mm' holds values beyond what is declared"),
    "a distance of a lightyear": ("measure", filled(1e19, "assd_mm"), "'assd_mm' holds values beyond what is declared"),
    "unknown, and a value": (
        "measure",
        lambda reply, sign: filled(0, "dice_known")(_half(reply, sign), sign),
        "none is known",
    ),
    "measures of unequal length": ("measure", cut("dice"), "'dice' has 0 rows, and 1"),
    "more subjects than it has": (
        "measure",
        cut("dice", "dice_known", "hd95_mm", "hd95_mm_known", "assd_mm", "assd_mm_known"),
        "for 1 test subjects",
    ),
}


def _half(reply, sign):
    payload = Payload.decode(reply.body)
    return sign(replace(payload, arrays={**payload.arrays, "dice": np.full((1, 2, 3), 0.5)}))


@pytest.mark.parametrize(("action", "change", "says"), BAD.values(), ids=BAD)
def test_a_bad_reply_excludes_its_site_by_name_and_the_others_go_on(scenario, tmp_path, action, change, says):
    measured, _, _ = run(scenario, tmp_path, at(action, change))
    found = statuses(tmp_path)
    assert set(measured) == {"centre1", "centre2"}
    assert found[HOSTILE].startswith(f"refused at the intake in {action!r}: ")
    assert says in found[HOSTILE]
    assert found[HOSTILE].isprintable()
    assert len(found[HOSTILE]) <= 600
    assert (found["centre1"], found["centre2"]) == ("ok", "ok")
    ledger.verify(tmp_path / "server" / "ledger.jsonl")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (FAILED, "failed in 'fit': KeyError. The details stay at the site, in its errors.log under id 1f."),
        (sends(Error(7, "a reason that nobody shows")), "died in 'fit' (Flower error code 7)"),
        (sends(), "gave no answer to 'fit' within 0.05 s"),
    ],
    ids=["an error", "a death", "silence"],
)
def test_a_site_that_fails_is_excluded_and_asked_again_when_the_run_goes_on(scenario, tmp_path, change, says):
    measured, _, _ = run(scenario, tmp_path, at("fit", change))
    assert set(measured) == {"centre1", "centre2"}
    assert statuses(tmp_path)[HOSTILE] == says
    measured, _, grid = run(scenario, tmp_path)
    assert set(measured) == set(SITES)
    assert ("fit", 0, HOSTILE) in grid.asked


@pytest.mark.parametrize(
    "change",
    [sends(write_reply(Refused(HOSTILE, "kind.not-allowed", "The policy says no.\x07", ""))), filled(7)],
    ids=["blocked", "caught"],
)
def test_a_site_that_was_blocked_or_caught_is_not_asked_again_until_the_run_begins_again(scenario, tmp_path, change):
    run(scenario, tmp_path, at("fit", change))
    why = statuses(tmp_path)[HOSTILE]
    assert "\x07" not in why
    measured, _, grid = run(scenario, tmp_path)
    assert set(measured) == {"centre1", "centre2"}
    assert statuses(tmp_path)[HOSTILE] == why
    assert {action for action, _, site in grid.asked if site == HOSTILE} == {"describe"}, "the roll call asks all nodes"
    begin_again(tmp_path / "server")
    assert set(run(scenario, tmp_path)[0]) == set(SITES)


def _fails(*sites, at="fit"):
    def tamper(name, order, reply, sign):
        hit = order.action == at and name in sites
        return [write_reply(Failed(name, "OSError", "1f") if hit else reply)]

    return tamper


def test_too_few_sites_end_the_run_with_every_reason(scenario, tmp_path):
    with pytest.raises(
        QuorumError, match=r"1 of 3 sites remain, the quorum is 2: .*'centre2' failed.*'centre3'"
    ) as got:
        run(scenario, tmp_path, _fails("centre2", "centre3"))
    assert got.value.status == 3
    assert set(run(scenario, tmp_path)[0]) == set(SITES), "all that failed are asked again"


@pytest.mark.parametrize("action", ["describe", "fit"])
def test_that_every_site_failed_is_a_failed_run_and_no_lack_of_sites(scenario, tmp_path, action):
    with pytest.raises(
        SiteError, match=f"every site failed: site 'centre1' failed in '{action}': OSError.*'centre3'"
    ) as got:
        run(scenario, tmp_path, _fails(*SITES, at=action))
    assert got.value.status == 1
    assert not isinstance(got.value, QuorumError)
    assert isinstance(got.value, RunError)


def replace_site(name):
    return lambda reply, sign: [write_reply(sign(replace(Payload.decode(reply.body), site=name), site=name))]


def test_two_nodes_of_one_name_are_both_out_unless_a_key_tells_them_apart(scenario, tmp_path):
    one = scenario.model_copy(update={"quorum": 1})
    measured, _, _ = run(one, tmp_path / "new", at("describe", replace_site("centre1")))
    found = statuses(tmp_path / "new")
    assert set(measured) == {"centre2"}
    assert "2 nodes present themselves as this site" in found["centre1"]
    assert "did not present itself" in found[HOSTILE]
    run(one, tmp_path / "known", _fails("centre2"))
    measured, _, _ = run(one, tmp_path / "known", at("describe", replace_site("centre1")))
    assert set(measured) == {"centre1", "centre2"}, "the key by which centre1 is known says which node it is"


def test_a_stranger_and_a_site_that_does_not_know_itself_are_named_where_a_site_is_missing(scenario, tmp_path):
    run(scenario, tmp_path / "a", at("describe", replace_site("centre9")))
    assert "'centre9', which is no site of this run" in statuses(tmp_path / "a")[HOSTILE]
    run(scenario, tmp_path / "b", at("describe", sends(write_reply(Failed("unknown", "OSError", "1f")))))
    assert "failed before it knew which site it is: OSError" in statuses(tmp_path / "b")[HOSTILE]


def test_counts_may_not_change_under_what_is_stored(scenario, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(scenario, tmp_path, _interrupted)

    def more(reply, sign):
        payload = Payload.decode(reply.body)
        arrays = {**payload.arrays, "slices_train": payload.arrays["slices_train"] + 1}
        return [write_reply(sign(replace(payload, arrays=arrays)))]

    run(scenario, tmp_path, at("describe", more))
    assert "its counts are {" in statuses(tmp_path)[HOSTILE]


def _interrupted(name, order, reply, sign):
    if order.action == "send_masks":
        raise KeyboardInterrupt
    return [write_reply(reply)]


# --- anything at all -------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=20), st.binary(max_size=20)
)
values = scalars | st.lists(st.floats(), max_size=3) | st.lists(st.text(max_size=3), max_size=3)
FIELDS = (
    "body",
    "signature",
    "public_key",
    "head",
    "seconds",
    "peak_rss_mb",
    "encrypted_to",
    "site",
    "rule",
    "reason",
    "error",
    "log_id",
)
keys = st.sampled_from(FIELDS) | st.text(max_size=8)
records = st.dictionaries(keys, values, max_size=8).map(ConfigRecord)
any_content = st.dictionaries(
    st.sampled_from(["released", "refused", "failed", "order"]) | st.text(max_size=5), records, max_size=2
).map(RecordDict)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HEADER = ("kind", "site", "purpose", "level", "shard", "shards", "history")
arrays = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.float16, np.uint8, np.int64, np.int32, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
)
replies = st.one_of(
    st.tuples(st.just("content"), any_content),
    st.tuples(st.just("fields"), st.dictionaries(st.sampled_from(FIELDS), values, min_size=1, max_size=2)),
    st.tuples(st.just("header"), st.dictionaries(st.sampled_from(HEADER), jsons, min_size=1, max_size=2)),
    st.tuples(
        st.just("arrays"),
        st.dictionaries(
            st.sampled_from(["lost", "codes", "dice", "dice_known", "slices_train"]), arrays, min_size=1, max_size=2
        ),
    ),
    st.tuples(
        st.just("bytes"), st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4)
    ),
    st.tuples(st.just("head"), jsons | st.dictionaries(st.sampled_from(["site", "lines", "hash", "signature"]), jsons)),
    st.tuples(st.just("code"), st.integers(0, 999)),
    st.tuples(st.just("times"), st.sampled_from([0, 2])),
)


def _hostile(what, reply, sign):
    """What a site sends that may send anything."""
    kind, value = what
    payload = Payload.decode(reply.body)
    if kind == "content":
        return [value]
    if kind == "fields":
        return [RecordDict({"released": ConfigRecord({**vars(reply), **value})})]
    if kind == "code":
        return [Error(value, "why")]
    if kind == "times":
        return [write_reply(reply)] * value
    if kind == "head":
        return [write_reply(sign(reply.body, head=json.dumps(value)))]
    if kind == "bytes":
        body = bytearray(reply.body)
        for place, mask in value:
            body[place % len(body)] ^= mask
        return [write_reply(sign(bytes(body)))]
    header = {name: getattr(payload, name) for name in HEADER}
    header |= {"history": list(payload.history), **(value if kind == "header" else {})}
    content = {**payload.arrays, **(value if kind == "arrays" else {})}
    return [write_reply(sign(save(content, metadata={"payload": json.dumps(header, sort_keys=True)})))]


@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(action=st.sampled_from(ORDERS), what=replies)
@example(action="fit", what=("fields", {"seconds": "1.0"}))
@example(action="describe", what=("fields", {"public_key": 1.5}))
@example(action="measure", what=("header", {"level": 10**4000}))
def test_no_reply_whatever_ends_a_run_that_has_its_quorum(scenario, action, what):
    with tempfile.TemporaryDirectory() as folder:
        measured, federation, _ = run(scenario, Path(folder), at(action, lambda *given: _hostile(what, *given)))
        found = statuses(Path(folder))
        assert {"centre1", "centre2"} <= set(measured)
        assert (found["centre1"], found["centre2"]) == ("ok", "ok")
        assert found[HOSTILE].isprintable()
        assert len(found[HOSTILE]) <= 600
        assert (HOSTILE in measured) == (found[HOSTILE] == "ok")
        ledger.verify(Path(folder) / "server" / "ledger.jsonl")
        assert federation.accounts[HOSTILE].seconds < 1e9


def test_codes_that_no_protection_touched_are_refused_where_the_scenario_has_one(tmp_path):
    """The history has to have the words of the scenario's protections, at the server as at the gate."""
    noise = 'protections=[{name="noise", of=["image-code"]}]'
    scenario = load_scenario(
        ROOT / "simulations" / "quickstart.toml", [*tiny_settings(Path("nowhere")), "quorum=2", noise]
    )
    words = protected(scenario.protections, STREAMS["send_images"]).history
    assert len(words) == 2

    def tamper(site, order, reply, sign):
        if order.action == "send_images" and site != HOSTILE:
            reply = sign(replace(Payload.decode(reply.body), history=words))
        return [write_reply(reply)]

    measured, _, _ = run(scenario, tmp_path, tamper)
    assert set(measured) == {"centre1", "centre2"}
    assert "history is not the one of 2 steps" in statuses(tmp_path)[HOSTILE]


def test_receipts_say_in_which_stage_and_how_long_and_accounts_how_long_the_server_waited(tmp_path, scenario):
    class Staged(Toy):
        @staticmethod
        def conduct(federation):
            with federation.stage("fit"):
                federation.ask("fit", LOST)
            expected = measured_declared(None, Scope(federation.grid, federation.task), Order("measure"))
            return federation.ask("measure", expected)

    run(scenario, tmp_path, method=Staged())
    facts = [line.facts for line in ledger.read(tmp_path / "server" / "ledger.jsonl") if line.event == "receipt"]
    told = [(each["action"], each["number"], each.get("stage"), each["centiseconds"]) for each in facts]
    orders = (("describe", 0, None), ("fit", 0, "fit"), ("measure", 0, None))
    assert told == [(*order, 50) for order in orders for _ in SITES], "a fake site says half a second"
    accounts = json.loads((tmp_path / "server" / "accounts.json").read_text())
    assert 0 < accounts["waited"]["fit"] <= accounts["stages"]["fit"]
