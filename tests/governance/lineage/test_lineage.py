"""The life of one patient's data: every form is there, with lines that say so; the server's side names nobody."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import pytest
from browser import cut_off
from conftest import BRIEF, ROOT, tiny_settings
from matplotlib.backends.backend_agg import FigureCanvasAgg
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.errors import LedgerError, RequestError
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.lifecycle.withdrawal import withdraw
from fedprivseg.governance.lineage import diagram as module
from fedprivseg.governance.lineage.lineage_page import page_of
from fedprivseg.governance.lineage.prov_json import prov_json
from fedprivseg.governance.lineage.server_side import trace_shard
from fedprivseg.governance.lineage.site_side import trace_subject
from fedprivseg.governance.sitefolder.notes import PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.vault import open_vault
from fedprivseg.study.run import load_scenario, simulate

SITES = ("centre1", "centre2", "centre3")
SHARD = 24  # slices, as in BRIEF
COARSE = [*BRIEF, *(f"method.parameters.{each}" for each in ("image_steps=1", "mask_steps=1", "mapping_steps=1"))]
FEDAVG = ["method.name=fedavg", 'method.variant=""', "method.parameters={rounds=2, local_steps=1}"]
SEALED = 'policy.restrict.centre1={profile="open-research", at_rest="encrypted"}'


def _run(folder, phantom, name, *settings):
    simulate(load_scenario(ROOT / f"simulations/policy-{name}.toml", [*tiny_settings(phantom), *settings]), folder)
    return folder


@pytest.fixture(scope="module")
def coded(phantom, tmp_path_factory):
    return _run(tmp_path_factory.mktemp("coded") / "run", phantom, "open", *COARSE)


@pytest.fixture(scope="module")
def averaged(phantom, tmp_path_factory):
    return _run(tmp_path_factory.mktemp("averaged") / "run", phantom, "open", *FEDAVG, SEALED)


@pytest.fixture(scope="module")
def withdrawn(phantom, tmp_path_factory):
    """A run in which a patient of centre1 withdrew, and the withdrawal was carried out; the patient's code with it."""
    run = _run(tmp_path_factory.mktemp("withdrawn") / "run", phantom, "withdrawal", *COARSE)
    header, *rows = (run / "sites/centre1/consent.csv").read_text().splitlines()
    column = header.split(",").index("withdrawn")
    (subject,) = [row.split(",")[0] for row in rows if row.split(",")[column]]
    withdraw(run, "centre1", subject)
    return run, subject


def _people(run, side, site="centre1"):
    cohort = json.loads(Notes(run / "sites" / site).read(PARTICIPANTS))
    return [one["code"] for one in cohort[side]]


def _everybody(run):
    """Codes and pseudonyms of all subjects of all sites."""
    found = []
    for site in SITES:
        key = SiteKey.load(run / "sites" / site / "vault/key.pem")
        codes = [*_people(run, "train", site), *_people(run, "test", site)]
        found += [*codes, *(key.pseudonym(code) for code in codes)]
    return found


def _outputs(trace):
    return [prov_json(trace), module.svg_of(trace), page_of(trace), trace.model_dump_json()]


def _call(*words):
    return CliRunner().invoke(app, ["trace", *map(str, words)])


def _forms(trace):
    return [(form.lane, form.sort, form.state) for form in trace.artefacts]


def test_the_ledger_says_whose_slices_stand_in_each_shard(coded):
    for site in SITES:
        home = coded / "sites" / site
        key = SiteKey.load(home / "vault/key.pem")
        owners = {}
        for side in ("train", "test"):
            people = json.loads(Notes(home).read(PARTICIPANTS))[side]
            # Both annotated phases of a volume of Z slices are sent: 2 Z rows a subject, subject by subject.
            owners[side] = [one["code"] for one in people for _ in range(2 * nib.load(one["image"]).shape[2])]
        for line in ledger.read(home / "ledger.jsonl"):
            kind, action, number = (line.facts.get(name) for name in ("kind", "action", "number"))
            side = "test" if action in ("send_test_codes", "measure") else "train"
            if kind in ("image-code", "mask-code"):
                view, part = divmod(number, -(-len(owners[side]) // SHARD))
                order = open_vault(home).load(f"{side}ing-order")["order"][view]
                sent = {owners[side][place] for place in order[part * SHARD : (part + 1) * SHARD]}
                expected = [code for code in owners[side] if code in sent]
            elif kind == "metric":
                expected = owners["test"]
            else:
                assert line.event == "enrolment" or "subjects" not in line.facts
                continue
            assert line.facts["subjects"] == [key.pseudonym(code) for code in dict.fromkeys(expected)]


def test_weights_are_of_all_who_were_trained_on(averaged):
    key = SiteKey.load(averaged / "sites/centre1/vault/key.pem")
    everybody = [key.pseudonym(code) for code in _people(averaged, "train")]
    sent = [
        line for line in ledger.read(averaged / "sites/centre1/ledger.jsonl") if line.facts.get("kind") == "weights"
    ]
    assert len(sent) == 2
    assert all(line.facts["subjects"] == everybody for line in sent)


def test_every_form_of_a_training_subject_is_there(coded):
    trace = trace_subject(coded, _people(coded, "train")[0])
    assert _forms(trace) == [
        ("site", "file", "kept"),
        ("site", "array", "kept"),
        ("site", "model", "kept"),
        ("gate", "code", "passed"),
        ("server", "code", "kept"),
        ("gate", "code", "passed"),
        ("server", "code", "kept"),
        ("server", "model", "kept"),
    ]
    assert [part.name for part in trace.artefacts[-1].parts] == ["mapping.safetensors"]
    assert trace.artefacts[3].done == ("view", "image encoder", "float16")
    assert trace.artefacts[1].lacking == ("not encrypted at rest",)


def test_every_form_of_a_test_subject_is_there(coded):
    trace = trace_subject(coded, _people(coded, "test")[0])
    assert _forms(trace) == [
        ("site", "file", "kept"),
        ("site", "array", "kept"),
        ("gate", "code", "passed"),
        ("server", "code", "kept"),
        ("server", "answer", "passed"),
        ("site", "prediction", "kept"),
        ("gate", "measures", "passed"),
        ("server", "measures", "kept"),
    ]
    assert any("images of three test subjects" in note for note in trace.notes)


def test_an_update_goes_into_the_averaged_network_and_back_to_a_sealed_site(averaged):
    trace = trace_subject(averaged, _people(averaged, "train")[0])
    assert [(form.lane, form.sort) for form in trace.artefacts] == [
        ("site", "file"),
        ("site", "array"),
        ("gate", "weights"),
        ("server", "weights"),
        ("server", "model"),
        ("site", "model"),
    ]
    assert trace.artefacts[-1].made_from == (trace.artefacts[-2].id,)
    for form in (trace.artefacts[1], trace.artefacts[-1]):
        assert form.protections == ("encrypted at rest, AES-256-GCM",)
        assert [part for part in form.parts if part.name.startswith("vault/")]
        assert all(part.name.endswith(".sealed") for part in form.parts if part.name.startswith("vault/"))
    tested = trace_subject(averaged, _people(averaged, "test")[0])
    (masks,) = [form for form in tested.artefacts if form.sort == "prediction"]
    assert [part.name for part in masks.parts] == [
        "vault/prediction-00000-ed.sealed",
        "vault/prediction-00000-es.sealed",
    ]


def test_references_lead_to_the_lines_that_tell_of_it(coded, averaged, withdrawn):
    for run, subject in ((coded, _people(coded, "train")[0]), (averaged, _people(averaged, "test")[0]), withdrawn):
        books = {"server": ledger.read(run / "server/ledger.jsonl")}
        books |= {site: ledger.read(run / "sites" / site / "ledger.jsonl") for site in SITES}
        trace = trace_subject(run, subject)
        for form in trace.artefacts:
            assert form.references
            for reference in (*form.references, *([form.ended] if form.ended else [])):
                line = books[reference.ledger][reference.line]
                assert (line.event, line.time) == (reference.event, reference.time)
            lines = [books[reference.ledger][reference.line] for reference in form.references]
            if form.lane == "gate":
                assert {line.event for line in lines} == {"refusal" if form.state == "refused" else "release"}
                assert [line.facts["digest"] for line in lines] == [part.sha256 for part in form.parts]
                assert all(trace.subject in line.facts["subjects"] for line in lines)
            if form.lane == "server" and form.sort in ("code", "weights", "measures"):
                assert {line.event for line in lines} == {"receipt"}
                assert [line.facts["digest"] for line in lines] == [part.sha256 for part in form.parts]


def test_a_withdrawal_is_the_end(withdrawn):
    run, subject = withdrawn
    trace = trace_subject(run, subject)
    end = trace.artefacts[-1]
    assert (end.sort, [each.event for each in end.references]) == ("end", ["withdrawal"])
    assert max(reference.time for form in trace.artefacts for reference in form.references) == end.time
    states = {(form.lane, form.sort): form.state for form in trace.artefacts}
    assert states == {
        ("site", "file"): "kept",  # the hospital's own images are not the study's to delete
        ("site", "array"): "gone",
        ("site", "model"): "gone",
        ("gate", "code"): "refused",
        ("server", "code"): "gone",
        ("site", "end"): "end",
    }
    shards = next(form for form in trace.artefacts if (form.lane, form.sort) == ("server", "code"))
    assert shards.ended is not None
    line = ledger.read(run / "server/ledger.jsonl")[shards.ended.line]
    assert line.facts["rule"] == "consent.no-longer-valid"


def test_archives_and_destructions_that_name_the_subject_are_told_and_others_noted(coded, tmp_path):
    run = shutil.copytree(coded, tmp_path / "run")
    home = run / "sites/centre1"
    key = SiteKey.load(home / "vault/key.pem")
    one, other = _people(run, "train")[:2]
    book = ledger.Ledger(home / "ledger.jsonl", key, "centre1")
    facts = {"archive": "a-2026", "clause": "5.7-d", "level": 3, "keep_until": "2027-01-01"}
    book.append("archive", {**facts, "subjects": [key.pseudonym(one)]})
    book.append("destruction", {"method": "crypto-erasure", "clause": "5.8-f", "subjects": [key.pseudonym(one)]})
    book.append("destruction", {"method": "erase", "clause": "5.8-f"})
    assert [form.title for form in trace_subject(run, one).artefacts][-2:] == ["Archived", "Destroyed"]
    foreign = trace_subject(run, other)
    assert {form.sort for form in foreign.artefacts} & {"archive", "end"} == set()
    assert [note for note in foreign.notes if "destruction without saying whose data" in note]


def test_the_servers_side_names_no_subject_in_any_byte(coded, withdrawn, tmp_path):
    run = tmp_path / "server-only"
    shutil.copytree(coded / "server", run / "server")
    for name in ("scenario.json", "run-id", "method.json"):
        shutil.copy(coded / name, run / name)
    names = _everybody(coded)
    assert len(names) == 2 * 9
    shards = [
        line.facts["digest"]
        for line in ledger.read(run / "server/ledger.jsonl")
        if line.event == "receipt" and line.facts["action"] != "describe"
    ]
    seen = set()
    for shard in shards:
        trace = trace_shard(run, shard)
        seen |= {form.sort for form in trace.artefacts}
        for text in _outputs(trace) if "centre1" in trace.label else [trace.model_dump_json()]:
            assert not any(name in text for name in names)
    assert {"code", "model", "answer", "measures"} <= seen
    gone = trace_shard(withdrawn[0], "centre1/send_image_codes/0")
    assert gone.artefacts[-1].state == "gone"
    assert gone.artefacts[-1].ended is not None


def test_a_shard_goes_by_its_hash_or_its_place(coded):
    by_place = trace_shard(coded, "centre2/send_mask_codes/1")
    assert trace_shard(coded, by_place.subject[:12]) == by_place
    for wrong in ("centre2/send_mask_codes/999", by_place.subject[:5], _people(coded, "train")[0]):
        with pytest.raises(RequestError, match="came to this server"):
            trace_shard(coded, wrong)


def test_outputs_name_the_subject_by_its_pseudonym_unless_asked(coded):
    for code in (_people(coded, "train")[0], _people(coded, "test")[0]):
        trace = trace_subject(coded, code)
        assert not any(name in text for text in _outputs(trace) for name in _everybody(coded) if name != trace.subject)
        assert trace == trace_subject(coded, trace.subject)
        assert all(code in text for text in _outputs(trace_subject(coded, code, with_code=True)))


def test_an_unknown_subject_is_status_2_and_names_nobody(coded):
    done = _call(coded, "Z9Z9Z9")
    assert isinstance(done.exception, RequestError)
    assert done.exception.status == 2
    assert "fedprivseg data check" in str(done.exception)
    assert not any(name in str(done.exception) for name in _everybody(coded))
    with pytest.raises(RequestError, match="known at centre2"):
        trace_subject(coded, _people(coded, "train")[0], site="centre2")
    with pytest.raises(RequestError, match="sites of this run are: centre1, centre2, centre3"):
        trace_subject(coded, "Z9", site="centre9")


def test_a_ledger_that_was_changed_is_not_believed(coded, tmp_path):
    run = shutil.copytree(coded, tmp_path / "run")
    path = run / "sites/centre1/ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"level":3', b'"level":2', 1))
    with pytest.raises(LedgerError, match="was changed"):
        trace_subject(run, _people(run, "train")[0])


def test_prov_json_is_whole(coded, withdrawn):
    """Every relation joins what is declared, and every form was generated, attributed and, if gone, invalidated, once."""
    for run, subject in ((coded, _people(coded, "test")[0]), withdrawn):
        trace = trace_subject(run, subject)
        document = json.loads(prov_json(trace))
        declared = {name for part in ("entity", "activity", "agent") for name in document[part]}
        relations = {name: list(document[name].values()) for name in document if name[:3] in ("was", "use", "had")}
        for ends in (end for each in relations.values() for end in each):
            assert {value for name, value in ends.items() if name != "prov:time"} <= declared
        assert all(name.split(":")[0] in document["prefix"] for name in declared)
        forms = sorted(f"run:artefact/{form.id}" for form in trace.artefacts if form.sort != "end")
        for relation in ("wasGeneratedBy", "wasAttributedTo"):
            assert sorted(each["prov:entity"] for each in relations[relation]) == forms
        gone = sorted(f"run:artefact/{form.id}" for form in trace.artefacts if form.state == "gone")
        assert sorted(each["prov:entity"] for each in relations.get("wasInvalidatedBy", [])) == gone
        derived = {(each["prov:generatedEntity"], each["prov:usedEntity"]) for each in relations["wasDerivedFrom"]}
        assert derived == {
            (f"run:artefact/{f.id}", f"run:artefact/{each}") for f in trace.artefacts for each in f.made_from
        }


def test_no_text_of_the_image_lies_on_another_or_leaves_its_box(coded, averaged, withdrawn):
    traces = [
        trace_subject(coded, _people(coded, "train")[0]),
        trace_subject(coded, _people(coded, "test")[0]),
        trace_subject(averaged, _people(averaged, "test")[0]),
        trace_subject(*withdrawn),
        trace_shard(coded, "centre1/send_test_codes/0"),
    ]
    for trace in traces:
        columns = module.places(trace.artefacts)
        assert len({(form.lane, columns[form.id]) for form in trace.artefacts}) == len(trace.artefacts)
        with module.house_style("test"):
            figure = module.draw(trace)
            renderer = FigureCanvasAgg(figure).get_renderer()
        (panel,) = figure.axes
        texts = [text.get_window_extent(renderer) for text in panel.texts if text.get_text()]
        boxes = [patch.get_window_extent(renderer) for patch in panel.patches if patch.get_zorder() == 3]
        assert len(boxes) == len(trace.artefacts)
        for place, one in enumerate(texts):
            assert not any(one.overlaps(other) for other in texts[place + 1 :])
            for box in boxes:
                inside = box.x0 <= one.x0 and one.x1 <= box.x1 and box.y0 <= one.y0 and one.y1 <= box.y1
                assert inside or not box.overlaps(one)


def test_nothing_of_the_page_is_cut_off_at_any_width(coded, tmp_path):
    """Picture and table scroll by themselves; the title stands over the picture, and so wraps instead."""
    trace = trace_subject(coded, _people(coded, "train")[0])
    page = page_of(trace)
    assert cut_off(page, tmp_path) == {}
    assert page.count(module.title_of(trace)) == 3  # of the page, as its heading, and for a screen reader


def test_the_command_writes_what_the_ending_asks_for(coded, tmp_path):
    subject = _people(coded, "train")[0]
    for name, start in (("a.svg", b"<svg"), ("a.png", b"\x89PNG"), ("a.html", b"<!DOCTYPE"), ("a.json", b"{")):
        assert _call(coded, subject, "-o", tmp_path / name).exit_code == 0
        assert (tmp_path / name).read_bytes().startswith(start)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.json", "a.png", "a.svg"]
    assert _call(coded, subject, "--json").stdout == (tmp_path / "a.json").read_text()
    assert _call(coded, subject).stdout.count("\n") == 1 + 8
    assert "a.txt" in str(_call(coded, subject, "-o", tmp_path / "a.txt").exception)
    assert "knows no subjects" in str(_call(coded, subject, "--server", "--with-code").exception)
    assert not (tmp_path / "a.txt").exists()
