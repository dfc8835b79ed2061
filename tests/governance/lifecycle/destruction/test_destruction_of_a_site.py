"""Destruction at a site of a run: two people, no way back, nothing that can be read, and a certificate that shows it."""

from __future__ import annotations

import json
import shutil

import pytest
from small_run import PLAIN, SEALED, small_run
from typer.testing import CliRunner

from fedprivseg.cli import destroy as destroy_cli
from fedprivseg.cli.destroy import app
from fedprivseg.core.errors import RequestError
from fedprivseg.core.kinds import IMAGE_CODE
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.compliance import judge
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.lifecycle.backup import back_up, recover
from fedprivseg.governance.lifecycle.destruction import approval, execute
from fedprivseg.governance.lifecycle.destruction.certificate import DestructionError
from fedprivseg.governance.lifecycle.destruction.destruction_session import DONE, DestructionSession, open_session
from fedprivseg.governance.lifecycle.destruction.order import Method
from fedprivseg.governance.lifecycle.destruction.proof import prove
from fedprivseg.governance.sitefolder.audit import site_ledger
from fedprivseg.governance.sitefolder.history import disposed
from fedprivseg.governance.sitefolder.vault import open_vault
from fedprivseg.imaging.splits import Cohort
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.study.simulated_sites import provision_sites

BY, OTHER, WHY = "data-manager-1", "chief", "the term of retention has ended"
MEDIA = "disk shredded in July, ticket 12"


@pytest.fixture(scope="module")
def made(tmp_path_factory, phantom):
    return {
        name: small_run(tmp_path_factory.mktemp(name) / "run", phantom, setting)
        for name, setting in (("sealed", SEALED), ("plain", PLAIN))
    }


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made["sealed"], tmp_path / "run")


@pytest.fixture
def plain(made, tmp_path):
    return shutil.copytree(made["plain"], tmp_path / "run")


def killed(*arguments, **words):
    raise KeyboardInterrupt


def take(run):
    return open_session(run, "centre1")


def approved(run, **options):
    approval.order(take(run), BY, WHY, **options)
    approval.approve(take(run), OTHER)


def shot(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "ledger" not in path.name}


def proofs(run):
    return prove(run, "centre1", *site_ledger(run, "centre1"))


def gone(run):
    """The bytes of everything that is to go, by path."""
    site, server = RunFolder(run).site("centre1"), RunFolder(run).server
    paths = [
        *inventory.everything(site),
        *inventory.lists(site),
        *server.shards("centre1"),
        *inventory.metrics(server, "centre1"),
        site.sealing_key,
    ]
    return {path: path.read_bytes() for path in paths if path.exists()}


def nothing_left(run, bodies):
    """Whether no file of the site or the server holds one of `bodies`, as a whole or as a part of it."""
    left = [
        path
        for path in inventory.within_reach(RunFolder(run), "centre1")
        if any(body in path.read_bytes() for body in bodies.values())
    ]
    return left == [] and not any(path.exists() for path in bodies)


def test_an_order_that_nobody_approved_destroys_nothing(run):
    before = shot(run)
    with pytest.raises(RequestError, match="nothing was ordered"):
        approval.execute(take(run))
    approval.order(take(run), BY, WHY)
    with pytest.raises(RequestError, match="is not approved"):
        approval.execute(take(run))
    assert not disposed(run / "sites/centre1")
    assert {path: body for path, body in shot(run).items() if "destruction" not in path.name} == before


def test_who_ordered_cannot_approve_and_only_some_may_do_either(run):
    with pytest.raises(RequestError, match="'chief' may not order .* who may: data-manager-1, data-manager-2"):
        approval.order(take(run), OTHER, WHY)
    approval.order(take(run), BY, WHY)
    for who, said in ((BY, "Who requested it has approved it"), ("nobody", "may not approve")):
        with pytest.raises(RequestError, match=said):
            approval.approve(take(run), who)
        with pytest.raises(RequestError, match="is not approved"):
            approval.execute(take(run))
    approval.approve(take(run), OTHER)
    with pytest.raises(RequestError, match="approved already"):
        approval.approve(take(run), "data-manager-2")


def test_an_order_that_was_approved_or_changed_in_an_editor_is_refused(run):
    stated = approval.order(take(run), BY, WHY)
    path = run / "sites/centre1/destruction-1.order.json"
    path.write_text(stated.approve(OTHER, take(run).now.date()).model_dump_json())
    with pytest.raises(RequestError, match="is not approved"):
        approval.execute(take(run))
    path.write_text(stated.model_copy(update={"copies": ()}).model_dump_json())
    with pytest.raises(RequestError, match="was changed. Order it again"):
        approval.approve(take(run), OTHER)
    path.write_text("{")
    with pytest.raises(RequestError, match="cannot be read"):
        approval.execute(take(run))
    assert open_vault(run / "sites/centre1").has("training-slices")


def test_what_came_since_the_order_stops_it(run):
    approved(run)
    (run / "server/codes/centre1/send_image_codes/00002.safetensors").write_bytes(b"new")
    with pytest.raises(RequestError, match="holds other things than when destruction-1 was given"):
        approval.execute(take(run))
    assert not disposed(run / "sites/centre1")
    approved(run)
    assert approval.execute(take(run)).id == "destruction-2"
    assert proofs(run)[0].faults == ()


@pytest.mark.parametrize(("form", "method"), [("sealed", Method.ERASE), ("plain", Method.OVERWRITING)])
def test_afterwards_no_file_of_site_and_server_opens_or_holds_what_was_there(form, method, made, tmp_path):
    run = shutil.copytree(made[form], tmp_path / "run")
    home = run / "sites/centre1"
    bodies = gone(run)
    assert len(bodies) == (8 if form == "sealed" else 7)  # vault 2, lists 2, shards 2, metrics 1, and the key
    others = {path: body for path, body in shot(run).items() if "centre2" in str(path) or "centre3" in str(path)}
    approved(run, media="" if form == "sealed" else MEDIA)
    certificate = approval.execute(take(run))
    assert certificate.method == method
    assert nothing_left(run, bodies)
    assert not list((run / "server/codes/centre1").rglob("*.json"))
    assert not (run / "report.html").exists()  # it shows images of every site; it can be written again
    assert {path: path.read_bytes() for path in others} == others
    if form == "sealed":
        with pytest.raises(RequestError, match="is to be encrypted"):
            open_vault(home)
    assert [each.faults for each in proofs(run)] == [()]
    assert "server/mapping.safetensors" in certificate.derived[0]
    assert (run / "server/mapping.safetensors").exists()
    said = [line.facts for line in ledger.read(home / "ledger.jsonl") if line.event == "destruction"]
    assert [facts["what"] for facts in said] == ["ordered", "approved", "carried out"]
    assert said[2]["order"] == said[1]["order"] == certificate.order
    assert approval.execute(take(run)) == certificate
    assert len(ledger.read(home / "ledger.jsonl")) == take(run).lines[-1].index + 1 == 7  # key, intake, 2 releases, 3
    with pytest.raises(RequestError, match="was begun or is done"):
        approval.order(take(run), BY, WHY)


def test_what_was_never_sealed_is_refused_without_a_word_on_its_medium(plain):
    before = shot(plain)
    with pytest.raises(RequestError, match=r"order\.method"):
        approval.order(take(plain), BY, WHY)
    assert shot(plain) == before


def test_models_go_too_if_the_order_says_so(run):
    model = (run / "server/mapping.safetensors").read_bytes()
    approved(run, with_models=True)
    certificate = approval.execute(take(run))
    assert certificate.derived == ()
    assert nothing_left(run, {run / "server/mapping.safetensors": model})


def test_copies_that_the_ledger_names_are_listed(run):
    session = take(run)
    ledger.Ledger(session.folder.ledger, session.key, "centre1").append("archive", {"archive": "a"})
    approved(run)
    certificate = approval.execute(take(run))
    assert certificate.elsewhere == ("a copy that line 4 of the site's ledger names (archive)",)
    assert any("Out of reach of this order: a copy that line 4" in limit for limit in certificate.limits)


def test_an_interrupted_destruction_goes_on(run, monkeypatch):
    bodies = gone(run)
    approved(run)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            approval.execute(take(run))
    assert disposed(run / "sites/centre1")
    assert not (run / "sites/centre1/sealing.key").exists()  # the keys go first
    assert proofs(run)[0].faults == ("destruction-1: it was begun and is not finished.",)
    approval.execute(take(run))
    assert nothing_left(run, bodies)
    assert [each.faults for each in proofs(run)] == [()]


def test_a_copy_of_a_shard_that_the_server_kept_is_found_and_certifies_nothing(run):
    shard = RunFolder(run).server.shards("centre1")[0].read_bytes()
    approved(run)
    (run / "sites/centre1/copy.bin").write_bytes(shard)
    with pytest.raises(DestructionError, match=r"sites/centre1/copy\.bin holds what was deleted"):
        approval.execute(take(run))
    (run / "sites/centre1/copy.bin").unlink()
    approval.execute(take(run))
    (run / "server/again.safetensors").write_bytes(shard)
    assert proofs(run)[0].faults == ("destruction-1: server/again.safetensors holds what was deleted.",)


def _edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda home: _edit(home / "destruction-1.certificate.json", "chief", "owner"),
            "was changed, or is not the site's",
        ),
        (lambda home: (home / "destruction-1.certificate.json").write_text("{}"), "was changed, or is not the site's"),
        (lambda home: (home / "destruction-1.certificate.json").unlink(), "its certificate is gone"),
    ],
)
def test_a_tampered_certificate_does_not_verify(damage, said, run):
    approved(run)
    approval.execute(take(run))
    damage(run / "sites/centre1")
    (proof,) = proofs(run)
    assert proof.certificate is None
    assert said in proof.faults[0]
    assert CliRunner().invoke(app, ["verify", str(run), "centre1"]).exit_code == 1


def test_a_key_that_is_put_back_is_found(run):
    key = (run / "sites/centre1/sealing.key").read_bytes()
    approved(run)
    approval.execute(take(run))
    SealingKey.create(run / "sites/centre1/sealing.key")
    assert proofs(run)[0].faults == ()  # another key opens nothing
    (run / "sites/centre1/sealing.key").write_bytes(key)
    assert (
        proofs(run)[0].faults
        == (
            "destruction-1: sites/centre1/sealing.key holds what was deleted.",
            "destruction-1: the key that was destroyed is back.",
        )[1:]
    )


def test_a_backup_from_before_a_destruction_is_not_restored_after_it(run, tmp_path):
    home, backup, key = run / "sites/centre1", tmp_path / "centre1.backup", tmp_path / "sealing.key"
    back_up(run, "centre1", backup)
    shutil.copy2(home / "sealing.key", key)
    shutil.copytree(home, tmp_path / "before")
    approved(run)
    approval.execute(take(run))
    approval.execute(take(run))  # once more says it once
    assert sum(line.event == "destruction" for line in ledger.read(run / "server/ledger.jsonl")) == 1
    assert {each.clause: each.state for each in judge(run)}["5.6.2-d"] == "kept"
    shutil.move(home, tmp_path / "after")
    with pytest.raises(RequestError, match="before what the site held was destroyed"):
        recover(backup, run, "centre1", key)
    assert not home.exists()
    shutil.copytree(tmp_path / "before", home)  # by hand
    assert {each.clause: each.state for each in judge(run)}["5.6.2-d"] == "broken"


def test_the_commands_ask_before_they_destroy_and_name_no_file(run):
    call = CliRunner().invoke
    names = [str(run), "centre1"]
    shown = call(app, ["order", *names, "--as", BY, "--reason", WHY, "--json"])
    assert json.loads(shown.stdout)["state"] == "ordered"
    given = call(app, ["approve", *names, "--as", OTHER])
    assert given.exit_code == 0
    assert given.stdout.splitlines()[0] == "of the order\tdestruction-1"
    refused = call(app, ["execute", *names])
    assert isinstance(refused.exception, RequestError)
    assert "say --yes" in str(refused.exception)
    assert not disposed(run / "sites/centre1")
    done = call(app, ["execute", *names, "--yes"])
    assert done.exit_code == 0
    assert "destroyed by cryptographic erase" in done.stdout
    assert "training-slices" not in shown.stdout + done.stdout
    verified = call(app, ["verify", *names, "--json"])
    assert [each["holds"] for each in json.loads(verified.stdout)] == [True]
    assert call(app, ["verify", str(run), "centre2"]).stdout == "centre2: nothing was destroyed\n"
    with pytest.raises(RequestError, match="sites of this run are: centre1, centre2, centre3"):
        open_session(run, "centre9")


def test_on_a_terminal_the_name_of_the_site_is_typed(run, monkeypatch):
    approved(run)
    monkeypatch.setattr(destroy_cli, "_somebody_there", lambda: True)
    words = ["execute", str(run), "centre1"]
    refused = CliRunner().invoke(destroy_cli.app, words, input="yes\n")
    assert isinstance(refused.exception, RequestError)
    assert not disposed(run / "sites/centre1")
    assert CliRunner().invoke(destroy_cli.app, words, input="centre1\n").exit_code == 0
    assert disposed(run / "sites/centre1")


def test_a_ledger_line_that_could_not_be_written_is_written_the_next_time(run, monkeypatch):
    approved(run)

    with monkeypatch.context() as patch:
        patch.setattr(DestructionSession, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            approval.execute(take(run))
    assert "no line of the site's ledger names its certificate" in proofs(run)[0].faults[0]
    certificate = approval.execute(take(run))
    assert proofs(run)[0].faults == ()
    assert [line.facts["order"] for line in take(run).said(DONE)] == [certificate.order]


def test_a_site_takes_no_more_part_once_what_it_held_is_destroyed(run, phantom):
    """Nothing is computed, nothing leaves, and no new key is made when the run goes on."""
    session = take(run)
    site = SiteContext(session.configuration, session.scenario)
    assert not site.closed
    approved(run)
    approval.execute(take(run))
    assert SiteContext(session.configuration, session.scenario).closed
    refusal = site.policy_context().objection(IMAGE_CODE, "train")
    assert refusal.rule == "destruction.begun"
    cohorts = {site.name: Cohort((), ()) for site in session.scenario.sites}
    provision_sites(run, session.scenario, frozenset({IMAGE_CODE}), phantom, run / "cache", cohorts)
    assert not (session.folder.path / "sealing.key").exists()
    for record in session.folder.path.glob("destruction-*"):
        record.unlink()
    assert SiteContext(session.configuration, session.scenario).closed, "the ledger tells of it too"


# ---------------------------------------------------------------------------------------------- the clauses

EIGHT = ("5.8-a", "5.8-b", "5.8-c", "5.8-d", "5.8-e", "5.8-f")


def clauses(run):
    return {each.clause: each for each in judge(run) if each.clause in EIGHT}


def test_each_clause_of_destruction_is_judged_by_itself(run):
    assert {clause: each.state for clause, each in clauses(run).items()} == dict.fromkeys(EIGHT, "not applicable")
    approved(run)
    approval.execute(take(run))
    found = clauses(run)
    states = {clause: each.state for clause, each in found.items()}
    assert states.pop("5.8-e") in ("kept", "outside software")  # it depends on this machine's disk
    assert states == dict.fromkeys(("5.8-a", "5.8-b", "5.8-c", "5.8-d", "5.8-f"), "kept")
    assert found["5.8-b"].evidence == ("centre1:6",)  # key, intake, 2 releases, ordered, approved, carried out
    assert found["5.8-f"].evidence == ("sites/centre1/destruction-1.certificate.json",)
    assert found["5.8-d"].why.startswith("4 files")  # 2 shards, the measures, and the report
    (run / "sites/centre1/destruction-1.certificate.json").unlink()
    states = {clause: each.state for clause, each in clauses(run).items()}
    assert (states["5.8-a"], states["5.8-f"]) == ("broken", "broken")


def test_a_shard_that_comes_back_breaks_three_clauses(run):
    shard = RunFolder(run).server.shards("centre1")[0]
    body = shard.read_bytes()
    approved(run)
    approval.execute(take(run))
    shard.write_bytes(body)
    states = {clause: each.state for clause, each in clauses(run).items()}
    assert [clause for clause, state in states.items() if state == "broken"] == ["5.8-a", "5.8-d", "5.8-f"]


def test_what_is_kept_beyond_its_term_breaks_a_clause(run):
    station = run / "sites/centre1/station.json"
    station.write_text(json.dumps({**json.loads(station.read_text()), "today": "2027-01-02"}))
    found = clauses(run)["5.8-a"]
    assert found.state == "broken"
    assert "centre1: what the server has of the site was due on 2027-01-02" in found.why
    assert "fedprivseg retention" in found.fix
