"""Attacks on a finished run: from the released payloads to attacks.json."""

from __future__ import annotations

import html
import json

import numpy as np
import pytest
from conftest import BRIEF, tiny_settings
from safetensors.numpy import load_file

from fedprivseg.attacks import ATTACKS
from fedprivseg.attacks.alignment import Alignment
from fedprivseg.attacks.attributes import Attributes
from fedprivseg.attacks.base import Effort, Reconstruction
from fedprivseg.attacks.control_nets import CONTROL_NETS
from fedprivseg.core.admission_table import admission
from fedprivseg.core.config import AdmissionConfig, MethodConfig
from fedprivseg.core.errors import FolderError, LedgerError, RequestError
from fedprivseg.core.leakage_record import read_leakage
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.methods import resolve
from fedprivseg.methods.release_order import order_name
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study import leakage, pipeline
from fedprivseg.study.leakage import attack_run
from fedprivseg.study.leakage.attack_session import AttackSession
from fedprivseg.study.leakage.partial import AttackTask, Drafts, PartialResult
from fedprivseg.study.run import load_scenario, simulate

_result = AttackSession.result
RECONSTRUCTIONS = [attack for attack in ATTACKS if issubclass(attack, Reconstruction)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, phantom, quickstart):
    """A run that learned nothing, with a protection."""
    folder = tmp_path_factory.mktemp("attacked") / "run"
    rounded = '{name="precision", of=["image-code"], parameters={least=-4, most=4}}'
    decoded = "method.parameters.image_reconstruction=0.5"  # else no site has a decoder that could be tried on others
    settings = [*tiny_settings(phantom), *BRIEF, decoded, f"protections=[{rounded}]"]
    simulate(load_scenario(quickstart, settings), folder)
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(leakage, "SMALL", Effort(3, 3))


def test_every_attack_is_told_with_its_references(run):
    found = attack_run(run)
    assert read_leakage(run) == found
    assert found.sites == ("centre1",)
    assert found.protections == ("precision",)
    streams = {"images": {"train", "test"}, "masks": {"train", "answers"}}
    for what in ("images", "masks"):
        names = {(one.attack, one.stream) for one in found.reconstructions if one.what == what}
        assert names == {(attack.name, stream) for attack in RECONSTRUCTIONS for stream in streams[what]}
        assert found.worst(what).leakage == max(one.leakage for one in found.reconstructions if one.what == what)
    for one in found.reconstructions:
        assert one.site == "centre1"
        assert one.sentence.startswith(one.title)
        assert 0 <= one.rank1 <= 1
        assert one.metrics[0].lower_baseline < 1
        assert all(group.leakage is None for group in one.groups if group.patients < 3)
    assert set(found.streams) == {"train", "test", "answers"}
    assert found.headline.value == max(value for one in found.results for value in one.normalised.values())
    pictures = load_file(run / "attacks.safetensors")
    assert pictures["centre1.images.truth"].shape == pictures["centre1.images.drawn"].shape == (3, 1, 32, 32)
    assert json.loads((run / "attacks.json").read_text())["version"] == 3


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        ("fedavg", ("updates",)),
        ("privacy-sf", ("test", "train", "answers")),
        ("coded-federated", ("updates", "test", "train", "answers")),
    ],
)
def test_every_stream_of_a_method_is_asked_for(name, streams):
    """Attacked with some attacks alone, a run whose weights nobody attacked is not one of which all is known."""
    method = resolve(MethodConfig(name=name, variant="improved" if name == "privacy-sf" else "default"))
    assert leakage._streams(method, tested=True) == streams


def test_the_judge_puts_the_truth_into_the_order_of_release(run, monkeypatch):
    """Codes leave in another order than slices lie in; the truth beside them is what the site's own encoder made them of."""
    scenario = read_scenario(run)
    site = SiteRuntime(SiteContext(SiteConfiguration.read(RunFolder(run).site("centre1").configuration), scenario))
    for side in ("train", "test"):
        for row in site.vault.load(order_name(side))["order"]:
            assert (np.sort(row) == np.arange(len(row))).all()
            assert (row != np.arange(len(row))).any()
    seen = []
    monkeypatch.setattr(
        AttackSession,
        "result",
        lambda self, attack, setting, what, side, found, truth, seconds, *, own=None, stream="": (
            seen.append((self, what, stream, truth))
            or _result(self, attack, setting, what, side, found, truth, seconds)
        ),
    )
    attack_run(run, attacks=["foreign-decoder"])
    for session, what, stream, truth in seen:
        if stream != "answers":
            sent = next(each for each in session.method.sends if (each.what, each.side) == (what, stream))
            released, made = session.codes(sent), session.query(what)(truth.pictures)
            if stream == "train":  # some of them: those of the first subjects
                owners = site.slices("train").subjects[session.order(sent)]
                released = released[np.isin(owners, truth.subjects)]
            # The protection rounds by the range of the payload, which is another one here: an eighth of its range a step.
            assert np.abs(released - made).mean() < 0.1 * np.abs(released - np.roll(made, 1, axis=0)).mean() + 1e-3
    assert {(what, stream) for _, what, stream, _ in seen} >= {
        ("images", "train"),
        ("images", "test"),
        ("masks", "train"),
    }


def test_the_same_again(run):
    one, other = (attack_run(run, attacks=["alignment", "data-free"]) for _ in range(2))
    strip = lambda found: [each.model_dump(exclude={"seconds"}) for each in found.reconstructions]  # noqa: E731
    assert strip(one) == strip(other)


def test_an_interrupted_session_goes_on_with_the_same_numbers(run, monkeypatch):
    """What was finished is read back, not attacked again, and nothing of it is left at the end."""
    names = ["foreign-decoder", "alignment", "attributes"]
    whole = attack_run(run, attacks=names)
    carried_out = []
    carry_out = Alignment.carry_out

    def counted(self, view):
        carried_out.append(view.shape)
        return carry_out(self, view)

    def interrupted(self, population):
        raise KeyboardInterrupt

    monkeypatch.setattr(Alignment, "carry_out", counted)
    with monkeypatch.context() as patch:
        patch.setattr(Attributes, "infer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attack_run(run, attacks=names)
    assert len(carried_out) == 2  # images and masks
    assert sorted(path.name for path in inventory.shown(RunFolder(run)) if "draft" in path.name) == [
        f"attacks.draft-centre1.{what}.{name}.safetensors"
        for what in ("images", "masks")
        for name in ("alignment", "foreign-decoder")
    ]
    again = attack_run(run, attacks=names)
    assert len(carried_out) == 2
    strip = lambda found: [each.model_dump(exclude={"seconds"}) for each in (*found.reconstructions, *found.inferences)]  # noqa: E731
    assert strip(again) == strip(whole)
    assert again.left_out == whole.left_out
    assert not list(run.glob("*draft*"))


def test_drafts_of_another_run_or_budget_count_for_nothing(run):
    """A partial result is read back only if run, scenario and budget are the same."""
    carried_out = []
    drafts = [Drafts(run, stamp, pictures=False) for stamp in ("one", "one", "other")]
    task = AttackTask(
        "centre1.images.nothing", "centre1.images", lambda: carried_out.append(1) or PartialResult(left_out=("why",))
    )
    for place, count in enumerate((1, 1, 2)):
        assert drafts[place].result(task).left_out == ("why",)
        assert len(carried_out) == count
    drafts[0].forget()


def test_full_attacks_every_site(run, monkeypatch):
    monkeypatch.setattr(leakage, "FULL", Effort(2, 2))
    found = attack_run(run, "full", ["alignment"])
    assert {one.site for one in found.reconstructions} == {"centre1", "centre2", "centre3"}


def test_what_the_ledger_does_not_show_is_not_attacked(run):
    path = run / "server/codes/centre1/send_test_codes/00000.safetensors"
    body = path.read_bytes()
    try:
        path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
        with pytest.raises(LedgerError, match="not in its ledger as released"):
            attack_run(run, attacks=["alignment"])
    finally:
        path.write_bytes(body)


def test_an_adversary_is_given_what_it_declares_and_no_more(run, monkeypatch):
    seen = {}
    for attack in RECONSTRUCTIONS:

        def spy(self, view, attack=attack):
            seen[attack.name] = {each for each in leakage_knowledge if getattr(view, each) is not None}
            return {"": np.zeros((len(view.codes), *view.shape), np.float32)}

        monkeypatch.setattr(attack, "reconstruct", spy)
    leakage_knowledge = ("auxiliary", "query", "pairs", "foreign", "architecture")
    attack_run(run)
    assert seen == {attack.name: {each.value for each in attack.knows} for attack in RECONSTRUCTIONS}


def test_wrong_requests(run, tmp_path):
    with pytest.raises(FolderError, match="no finished run"):
        attack_run(tmp_path)
    with pytest.raises(RequestError, match="unknown attack 'magic'; the attacks are: foreign-decoder"):
        attack_run(run, attacks=["magic"])
    with pytest.raises(RequestError, match="unknown site 'x'"):
        attack_run(run, sites=["x"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory, phantom, quickstart):
    """A run in rounds: plain, and under secure aggregation."""
    folders = {}
    for summation in ("float", "secure"):
        folders[summation] = tmp_path_factory.mktemp(summation) / "run"
        settings = [*tiny_settings(phantom), "method.name=fedavg", "method.variant=default"]
        settings += [
            f"method.parameters={{rounds=1, local_steps=1, curve_points=0, test_views=1, summation='{summation}'}}"
        ]
        simulate(load_scenario(quickstart, settings), folders[summation])
    return folders


@pytest.mark.parametrize("summation", ["float", "secure"])
def test_updates_are_attacked_as_released_and_staged(weights, summation):
    found = attack_run(weights[summation])
    first = {"gradient-inversion", "learned-inversion", "statistics-inversion"}
    # Several steps need four subjects at the site, which has fewer.
    assert {one.attack for one in found.reconstructions} == {*first, "closed-form-inversion"}
    released = [one for one in found.reconstructions if not one.staged]
    expected = {"float": "released in round 1", "secure": "the sum of 3 sites in round 1"}
    assert {one.setting for one in released} == {expected[summation]}
    assert {one.attack for one in released} == first
    plain = {one.setting for one in found.reconstructions if one.staged and not one.defence and not one.net}
    assert plain == {"1 slice, 1 step"}
    active = {"small net with crafted weights", *(["dead weights at the other sites"] * (summation == "secure"))}
    assert {one.net for one in found.reconstructions} == {"", *CONTROL_NETS, *active}
    defences = {"float": set(), "secure": {"in the sum of 3 sites", "masked"}}
    assert {one.defence for one in found.reconstructions if one.defence} == defences[summation]
    assert {one.stream for one in found.reconstructions} == {"updates"}
    assert any("closed form" in why and "no dense layer" in why for why in found.left_out)
    assert found.worst("masks") is None
    assert any("Linkage of records: Federated averaging releases nothing" in why for why in found.left_out)
    assert {one.attack for one in found.inferences} == {"membership"}


def test_an_attack_that_works_under_a_defence_alone_has_failed_its_control(weights):
    found = attack_run(weights["secure"], attacks=["learned-inversion"])

    assert found.headline is None, "a few rehearsals on the phantom come nowhere near the image"

    def gave(measured, leakage):
        metrics = tuple(one.model_copy(update={"leakage": leakage}) for one in measured.metrics)
        return measured.model_copy(update={"metrics": metrics, "rank1": measured.chance})

    def where(works):
        results = (gave(one, 0.5 if bool(one.defence) == works else -0.5) for one in found.reconstructions)
        return found.model_copy(update={"reconstructions": tuple(results)})

    plain, defended = where(False), where(True)
    assert (plain.unknown, defended.unknown) == ((), ("updates",))


def test_what_was_not_measured_is_not_admitted(weights):
    found = attack_run(weights["float"], attacks=["membership"])
    lines = {line.name: line for line in admission(found, AdmissionConfig())}
    assert lines["normalised leakage of images"].passed is None
    line = lines["membership in the training, AUC"]
    assert line.passed == (line.measured <= line.threshold)


def test_the_report_says_that_nothing_is_known_where_the_control_failed(weights):
    found = attack_run(weights["float"], attacks=["learned-inversion"])
    assert found.unknown == ("updates",)
    page = pipeline.report(weights["float"]).read_text()
    assert "The leakage of this run is not known: no attack on updates of weights passed its control" in page
    assert page.count("not known: the attack failed its control") == 1
    assert "of slices (chance" in page, "what the staged updates came to is the control, and is shown"


def test_the_report_tells_it_in_plain_words(run):
    found = attack_run(run)
    page = pipeline.report(run).read_text()
    assert "What leaks" in page
    assert "Technical admission indicators" in page
    assert html.escape(found.reconstructions[0].sentence) in page or found.reconstructions[0].sentence in page
    assert page.count('<p class="small">reconstructed from what was released') == 2
