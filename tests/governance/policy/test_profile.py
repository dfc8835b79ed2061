"""Policies: profiles that can be read, files that cannot be misread, and a meet that never opens anything."""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.config import AdmissionConfig, ProtectionConfig
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.kinds import IMAGE_CODE, KINDS, MASK_CODE, WEIGHTS, KindSpec
from fedprivseg.governance.policy.grading import Grading
from fedprivseg.governance.policy.policy_context import Enrolled, PolicyContext, Safeguards
from fedprivseg.governance.policy.profile import (
    Demand,
    SitePolicy,
    differences,
    field_rules,
    meet,
    parse_policy,
    profile_names,
    read_policy,
    read_profile,
)
from fedprivseg.governance.policy.technique_table import Grade, Technique

PURPOSES = ("describe", "train", "infer", "measure")
TODAY = date(2026, 1, 1)


def choices(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


demands = st.builds(
    Demand,
    of=choices("image-code", "mask-code"),
    protection=choices("noise", "precision"),
    at_least=st.dictionaries(choices("multiplier"), st.floats(0, 2), max_size=1),
    at_most=st.dictionaries(choices("bits"), st.floats(1, 16), max_size=1),
)
gradings = st.builds(
    Grading,
    of=st.lists(choices("image-code", "weights", "raw"), min_size=1, max_size=2, unique=True).map(tuple),
    utility=st.sampled_from(Grade),
    confidentiality=st.sampled_from(Grade),
    unadvised=choices("refuse", "note"),
)
policies = st.builds(
    SitePolicy,
    profile=choices("open-research", "no-sharing"),
    says=st.just("A policy that a test drew at random."),
    kinds=st.lists(st.sampled_from(KINDS), max_size=9).map(tuple),
    purposes=st.lists(choices(*PURPOSES), max_size=4).map(tuple),
    max_level=st.integers(1, 5),
    raw_sharing=choices("forbidden", "allowed"),
    consent=choices("register", "release"),
    agreement=choices("required", "none"),
    demands=st.lists(demands, max_size=2).map(tuple),
    special_diseases=st.lists(choices("HCM", "DCM"), max_size=2).map(tuple),
    retention_days=st.none() | st.integers(0, 4000),
    at_rest=choices("encrypted", "plain"),
    admission=st.builds(AdmissionConfig, image_leakage=st.floats(0, 1), linkage=st.floats(0.5, 1)),
    strategy=st.lists(gradings, max_size=2).map(tuple),
    encrypt_from=st.sampled_from([1, 2, 3, 4, 5, "never"]),
    within_domain=st.lists(st.sampled_from(KINDS), max_size=9).map(tuple),
    across_domains=st.lists(st.sampled_from(KINDS), min_size=4, max_size=9).map(tuple),
    encrypt_across=choices("always", "by-level"),
)
ways = st.dictionaries(
    st.sampled_from((IMAGE_CODE, WEIGHTS)), st.lists(st.sampled_from(Technique), max_size=2).map(tuple)
)
forces = st.lists(
    st.builds(
        ProtectionConfig,
        of=choices(IMAGE_CODE, MASK_CODE).map(lambda kind: (kind,)),
        name=choices("noise", "precision"),
        parameters=st.fixed_dictionaries({}, optional={"multiplier": st.floats(0, 2), "bits": st.integers(1, 16)}),
    ),
    max_size=3,
).map(tuple)
enrolments = st.builds(Enrolled, subjects=st.integers(0, 3), revoked=st.none() | st.integers(0, 2))


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_says_what_it_covers_and_a_site_can_stand_on_it(name: str, tmp_path: Path) -> None:
    profile = read_profile(name)
    assert profile.profile == name
    assert profile.says.endswith(".")
    path = tmp_path / "policy.toml"
    path.write_text(f'profile = "{name}"\nmax_level = 1\n')
    assert read_policy(path).max_level == 1
    assert meet(profile, profile) == profile


def test_the_profiles_are_those_that_are_named_in_the_documents() -> None:
    assert profile_names() == [
        "codes-only",
        "gdpr-research",
        "hipaa-safe-harbor",
        "no-sharing",
        "open-research",
        "scgs-313008",
        "weights-only",
    ]


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_that_is_no_legal_advice_says_so(name: str) -> None:
    from importlib import resources

    text = (resources.files("fedprivseg.governance.policy") / "profiles" / f"{name}.toml").read_text().lower()
    assert "legal advice" in text or name == "no-sharing"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a policy stands on one of: codes-only"),
        ('profile = "free-for-all"', "free-for-all"),
        ('profile = "codes-only"\nmax_levl = 2', "did you mean 'max_level'"),
        ('profile = "codes-only"\nmax_level = 6', "max_level"),
        ('profile = "codes-only"\nkinds = ["pictures"]', "kinds"),
        ('profile = "codes-only"\nraw_sharing = "yes"', "raw_sharing"),
        ('profile = "codes-only', "not valid TOML"),
        (
            'profile = "codes-only"\n[[strategy]]\nof = ["metric"]\nutility = "medium"\nconfidentiality = "low"',
            "utility",
        ),
        ('profile = "codes-only"\n[[strategy]]\nof = []\nutility = "low"\nconfidentiality = "low"', "strategy.0.of"),
        ('profile = "codes-only"\n[[demands]]\nof = "weights"\nprotection = "noise"', "demands"),
    ],
)
def test_a_file_that_says_something_unknown_is_no_policy(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(ScenarioError, match=said):
        read_policy(tmp_path / "policy.toml")


def test_a_file_that_is_not_there_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such file"):
        read_policy(tmp_path / "policy.toml")


def test_without_a_word_a_policy_allows_nothing() -> None:
    bare = SitePolicy(profile="no-sharing", says="Nothing is said beyond this sentence.")
    standing = PolicyContext(bare, TODAY, enrolled=Enrolled(3, 0))
    assert all(standing.objection(kind, purpose) is not None for kind in KINDS for purpose in PURPOSES)
    assert meet(read_profile("open-research"), bare).kinds == ()


@settings(max_examples=300, deadline=None)
@given(one=policies, other=policies, protections=forces, techniques=ways, enrolled=enrolments)
def test_what_both_allow_is_all_that_their_meet_allows(
    one: SitePolicy,
    other: SitePolicy,
    protections: tuple[ProtectionConfig, ...],
    techniques: dict[KindSpec, tuple[Technique, ...]],
    enrolled: Enrolled,
) -> None:
    # `special` stays false: the meet may raise a level by knowing more special diseases, which the site finds at intake.
    def allowed(policy: SitePolicy) -> set[tuple[KindSpec, str]]:
        standing = PolicyContext(policy, TODAY, enrolled=enrolled, safeguards=Safeguards(protections, techniques))
        return {(kind, purpose) for kind in KINDS for purpose in PURPOSES if standing.objection(kind, purpose) is None}

    both = meet(one, other)
    assert allowed(both) == allowed(one) & allowed(other)
    assert meet(other, one).kinds == both.kinds
    assert allowed(meet(both, one)) == allowed(both)
    for name in AdmissionConfig.model_fields:
        assert getattr(both.admission, name) == min(getattr(one.admission, name), getattr(other.admission, name))
    terms = [policy.retention_days for policy in (one, other) if policy.retention_days is not None]
    assert both.retention_days == (min(terms) if terms else None)


def test_every_field_of_a_policy_says_how_two_meet_in_it_and_what_enforces_it() -> None:
    rules = field_rules()
    assert set(SitePolicy.model_fields) - set(rules) == {"profile", "says"}
    folder = ROOT / "fedprivseg" / "governance" / "policy"
    source = "".join(path.read_text() for path in (folder / "policy_context.py", folder / "gate.py"))
    for rule in rules.values():
        assert rule.read_by
        for each in rule.read_by:
            assert f'"{each}"' in source or find_spec(f"fedprivseg.{each}") is not None


@settings(max_examples=200, deadline=None)
@given(one=policies, other=policies)
def test_differences_are_named_just_where_there_are_any(one: SitePolicy, other: SitePolicy) -> None:
    same = one.model_copy(update={"profile": other.profile, "says": other.says}) == other
    assert bool(differences(one, other)) is not same
    assert differences(one, one) == ()
    assert all(sentence.endswith(".") for sentence in differences(one, other))


@pytest.mark.parametrize("name", [name for name in profile_names() if name != "no-sharing"])
def test_a_profile_grades_everything_that_it_lets_out(name: str) -> None:
    profile = read_profile(name)
    assert {kind for grading in profile.strategy for kind in grading.of} == set(profile.kinds)


@pytest.mark.parametrize(
    ("parameters", "met"),
    [
        ({"multiplier": 1.0, "clip": 1.0}, True),
        ({"multiplier": 2, "clip": 0.5}, True),
        ({"multiplier": 0.99, "clip": 1.0}, False),
        ({"multiplier": 1.0, "clip": 1.01}, False),
        ({"multiplier": 1.0}, False),
        ({"clip": 1.0}, False),
        ({}, False),
    ],
)
def test_a_demand_is_met_by_parameters_within_its_bounds(parameters: dict[str, float], met: bool) -> None:
    demand = Demand(of="image-code", protection="noise", at_least={"multiplier": 1.0}, at_most={"clip": 1.0})
    assert demand.met_by(parameters) is met


def test_a_site_replaces_its_profiles_words() -> None:
    own = parse_policy({"profile": "scgs-313008", "retention_days": 30}, "here")
    assert differences(read_profile("scgs-313008"), own) == (
        "What was made of patients' data may be kept for 30 days, before 365 days.",
    )


def test_encryption_by_level_that_begins_or_ends_is_said_in_words():
    never, from_3 = read_profile("open-research"), read_profile("scgs-313008")
    assert "What leaves is now encrypted to the server's key from level 3 on, before at no level." in differences(
        never, from_3
    )
    assert "What leaves is now encrypted to the server's key at no level, before from level 3 on." in differences(
        from_3, never
    )
