"""Kinds of payload: one entry each, also in a package of its own, followed from a site to the report."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, ClassVar, final

import numpy as np
import pytest
from conftest import ROOT, tiny_settings
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

import fedprivseg.methods
from fedprivseg.core.errors import PayloadError, RequestError, ScenarioError
from fedprivseg.core.expected import MOST_CODE, Array, Expected
from fedprivseg.core.kinds import (
    GROUP,
    IMAGE_CODE,
    KINDS,
    METRIC,
    STATUS,
    KindSpec,
    find_kind,
    kind_named,
    known_kinds,
)
from fedprivseg.core.records import Order, Payload
from fedprivseg.governance.compliance import assess
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.lineage.server_side import trace_shard
from fedprivseg.governance.lineage.site_side import trace_subject
from fedprivseg.governance.policy.preview import preview_policy
from fedprivseg.governance.policy.profile import parse_policy
from fedprivseg.governance.policy.technique_table import Technique
from fedprivseg.methods import resolve
from fedprivseg.methods.method import Action, Declaration, Method, Site, measured_declared
from fedprivseg.runtime.site.payload_techniques import techniques_of
from fedprivseg.study import pipeline
from fedprivseg.study.run import load_scenario, simulate

ENTRY = """
from fedprivseg.core.kinds import KindSpec

PROTOTYPE = KindSpec(
    "prototype",
    label="class prototypes",
    sentence="The mean code of each structure over all training slices of a hospital.",
    noun="prototype",
    purposes=("train",),
    discloses="individuals",
    derived_from="train",
    lineage="code",
    techniques=("statistics",),
    stored="always",
    protectable=True,
    max_values=64,
)
"""


class NoParameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def send_prototypes(method: Method, site: Site, order: Order) -> Payload:
    """Mean, deviation and two percentiles of each class's pixels: (4, 4) float32."""
    slices = site.training()
    codes = np.zeros((4, 4), np.float32)
    for label in range(4):
        pixels = slices.images[slices.masks == label]
        codes[label] = [pixels.mean(), pixels.std(), *np.percentile(pixels, (10, 90))]
    site.vault.save("prototypes", {"codes": codes})
    return Payload(kind_named("prototype"), site.name, "train", {"codes": codes}, history=("mean of each class",))


def measure(method: Method, site: Site, order: Order) -> Payload:
    """Every pixel is of the class whose mean is nearest. What comes back is what the site sent, opened."""
    codes = order.answer.arrays["codes"]
    assert np.allclose(codes, site.vault.load("prototypes")["codes"], atol=1e-3)
    means = codes[:, 0][None, :, None, None]
    return site.measure(-np.abs(site.testing()[:, None] - means))


@final
class Prototypes(Method):
    """A method as somebody else's package brings it."""

    name = "prototypes"
    title = "Class prototypes"
    paper = "Tan et al., AAAI 2022"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"default": {}}
    parameters_type = NoParameters
    actions: ClassVar[dict[str, Action]] = {"send_prototypes": send_prototypes, "measure": measure}

    def conduct(self, federation):
        sent = self.ask(federation, "send_prototypes")
        kind = kind_named("prototype")
        answers = {site: federation.answer(kind, site, payload.arrays, 0) for site, payload in sent.items()}
        return self.ask(federation, "measure", answers=answers)

    def predict(self, site, server_folder, images):
        raise NotImplementedError


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[KindSpec]:
    """An installed package with the one entry, and a method that sends it."""
    home = tmp_path / "installed"
    (home / "added-1.0.dist-info").mkdir(parents=True)
    (home / "added_prototype.py").write_text(ENTRY)
    (home / "added-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
    points = home / "added-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[{GROUP}]\nprototype = added_prototype:PROTOTYPE\n")
    monkeypatch.syspath_prepend(home)
    known_kinds.cache_clear()
    kind = kind_named("prototype")
    form = {"codes": Array("float32", (4, 4), -MOST_CODE, MOST_CODE)}
    declares: dict[str, Declaration] = {
        "send_prototypes": Expected(kind, "train", form, ("mean of each class",)),
        "measure": measured_declared,
    }
    monkeypatch.setattr(Prototypes, "exports", frozenset({kind, METRIC, STATUS}), raising=False)
    monkeypatch.setattr(Prototypes, "declares", declares, raising=False)
    monkeypatch.setitem(fedprivseg.methods.METHODS.own, Prototypes.name, Prototypes)
    yield kind
    known_kinds.cache_clear()


def scenario_of(phantom, *settings: str, kinds: tuple[str, ...] = ("prototype", "metric", "status")):
    method = ["method.name=prototypes", "method.variant=default", "method.parameters={}"]
    scenario = load_scenario(ROOT / "simulations/quickstart.toml", [*tiny_settings(phantom), *method, *settings])
    graded = [{"of": kinds, "utility": "low", "confidentiality": "low"}]
    lists = {key: list(kinds) for key in ("kinds", "within_domain", "across_domains")}
    sites = [
        site.model_copy(update={"policy": {**site.policy, **lists, "strategy": graded}}) for site in scenario.sites
    ]
    return scenario.model_copy(update={"sites": tuple(sites)})


def test_a_kind_of_another_package_goes_from_a_site_to_the_report(package, phantom, tmp_path):
    rounded = '{name="precision", of=["prototype"], parameters={bits=16, least=-4, most=4}}'
    keyed = f'protections=[{{name="keyed", of=["prototype"]}}, {rounded}]'
    scenario, run = scenario_of(phantom, keyed), tmp_path / "run"
    told = preview_policy(scenario, Prototypes.exports, techniques_of(resolve(scenario.method), scenario.protections))
    assert {(each.kind, each.purpose) for each in told if each.kind == package} == {(package, "train")}
    assert all(each.decision.allowed for each in told)
    result = simulate(scenario, run)
    assert result.finished == ("centre1", "centre2", "centre3")
    assert result.exports == ("metric", "prototype", "status")

    lines = ledger.read(run / "sites/centre1/ledger.jsonl")
    (sent,) = [line for line in lines if line.facts.get("kind") == "prototype"]
    (intake,) = [line for line in lines if line.event == "enrolment"]
    assert (sent.event, sent.facts["rule"], sent.facts["level"]) == ("release", "kind.declared", 3)
    assert sent.facts["history"] == ["mean of each class", "keyed channels", "16 bits a value, from -4 to 4"]
    assert sent.facts["techniques"] == ["statistics", "numeric transform", "truncation"]
    assert sent.facts["subjects"] == intake.facts["train"]

    stored = run / "server/codes/centre1/send_prototypes/00000.safetensors"
    payload = Payload.decode(stored.read_bytes())
    assert (payload.kind, payload.arrays["codes"].shape) == (package, (4, 4))
    came = [line.facts.get("digest") for line in ledger.read(run / "server/ledger.jsonl") if line.event == "receipt"]
    assert sent.facts["digest"] in came

    judged = {found.clause: found.state for found in assess(run)}
    assert [judged[clause] for clause in ("5.2", "5.3.2-c", "5.5", "5.6.2-b", "5.6.2-d")] == ["kept"] * 5
    page = pipeline.report(run).read_text(encoding="utf-8")
    assert package.label in page
    assert package.sentence in page

    forms = {form.id: form for form in trace_subject(run, intake.facts["train"][0], site="centre1").artefacts}
    assert (forms["gate.send_prototypes"].title, forms["gate.send_prototypes"].sort) == ("Prototype", "code")
    assert "keyed channels" in forms["gate.send_prototypes"].protections
    assert forms["server.send_prototypes"].state == "kept"
    shard = trace_shard(run, "centre1/send_prototypes/0").artefacts
    assert [(form.id, form.sort) for form in shard] == [("gate", "code"), ("server", "code")]


def test_a_hospital_lets_out_no_new_kind_that_its_policy_does_not_list(package, phantom):
    scenario = scenario_of(phantom, kinds=("metric", "status"))
    told = preview_policy(scenario, Prototypes.exports, techniques_of(resolve(scenario.method), scenario.protections))
    assert {each.decision.rule for each in told if each.kind == package} == {"kind.not-allowed"}


def test_without_the_package_its_kind_is_unknown(package, phantom):
    payload = Payload(package, "centre1", "train", {})
    known_kinds.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedprivseg.core.kinds.entry_points", lambda group: ())
        with pytest.raises(PayloadError):
            Payload.decode(payload.encode())
        with pytest.raises(ScenarioError, match="unknown kind of payload 'prototype'"):
            parse_policy({"profile": "open-research", "kinds": ["prototype"]}, "policy.toml")


@pytest.mark.parametrize(
    ("value", "words"), [("added_prototype:KindSpec", "is no KindSpec"), ("fedprivseg.core.kinds:MASK_CODE", "")]
)
def test_an_entry_point_that_is_no_new_kind(monkeypatch, value, words):
    from importlib.metadata import EntryPoint

    known_kinds.cache_clear()
    point = EntryPoint("wrong", value.replace("added_prototype", "fedprivseg.core.kinds"), GROUP)
    monkeypatch.setattr("fedprivseg.core.kinds.entry_points", lambda group: [point])
    if words:
        with pytest.raises(RequestError, match=words):
            known_kinds()
    else:  # one of our own, named again, is the same kind
        assert known_kinds() == KINDS
    known_kinds.cache_clear()


def test_a_name_is_taken_once(monkeypatch):
    known_kinds.cache_clear()
    other = KindSpec("raw", **{f.name: getattr(IMAGE_CODE, f.name) for f in fields(IMAGE_CODE) if f.name != "value"})
    monkeypatch.setattr("fedprivseg.core.kinds.KINDS", KINDS[:2])
    point = type("Point", (), {"name": "raw", "value": "x:raw", "load": lambda self: other})()
    again = type("Point", (), {"name": "raw2", "value": "y:raw", "load": lambda self: KINDS[6]})()
    monkeypatch.setattr("fedprivseg.core.kinds.entry_points", lambda group: [point, again])
    with pytest.raises(RequestError, match="'raw', which exists already"):
        known_kinds()
    known_kinds.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_its_name_with_traits(kind):
    assert f"{kind}" == str(kind) == kind.value
    assert find_kind(kind.value) is kind_named(kind.value) is kind
    copied = pickle.loads(pickle.dumps(kind))
    assert (copied, copied.label, copied.raw) == (kind, kind.label, kind.raw)
    assert [Technique(word) for word in kind.techniques] == list(kind.techniques)
    assert kind.sentence.endswith(".")
    assert (kind.derived_from is None) == (kind.lineage == "status")
    assert TypeAdapter(KindSpec).validate_python(kind.value) is kind


@pytest.mark.parametrize(
    ("given", "words"),
    [("key", "no method sends a payload of kind 'key' any more: delete it"), ("metrics", "did you mean 'metric'")],
)
def test_an_unknown_kind_is_told_with_those_there_are(given, words):
    for reading in (
        lambda: kind_named(given),
        lambda: parse_policy({"profile": "open-research", "kinds": [given]}, "policy.toml"),
    ):
        with pytest.raises(RequestError, match=words) as caught:
            reading()
        assert "mask-share, masked-weights" in str(caught.value)
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(KindSpec).validate_python(given)


def test_protections_are_for_protectable_kinds(phantom):
    with pytest.raises(ScenarioError, match="metric is none; it may be for: image-code, mask-code"):
        load_scenario(
            ROOT / "simulations/quickstart.toml",
            [*tiny_settings(phantom), 'protections=[{name="noise", of=["metric"]}]'],
        )


def test_no_other_module_lists_kinds():
    """What differs by kind is a trait: outside of `core/kinds.py` there is no table by kind, no list of kinds, no name of one.
    A method alone may say more of the kinds that it sends."""
    names = {kind.value for kind in KINDS} - {"raw", "weights", "status", "metric"}  # these are words, too
    constants = {kind.value.upper().replace("-", "_") for kind in KINDS}
    found = []
    for path in sorted((ROOT / "fedprivseg").rglob("*.py")):
        if path.name == "kinds.py" or path.parent.name == "methods":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            texts = isinstance(node, ast.Constant) and node.value in names
            tables = isinstance(node, ast.Dict) and any(getattr(k, "id", "") in constants for k in node.keys if k)
            lists = isinstance(node, ast.Compare) and any(
                isinstance(each, ast.Tuple | ast.List | ast.Set)
                and {getattr(e, "id", "") for e in each.elts} & constants
                for each in node.comparators
            )
            if texts or tables or lists:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
