"""TOML that people write: whatever they write, a scenario comes out or one sentence about what is wrong."""

from __future__ import annotations

import codecs
import shutil

import pytest
import tomli_w
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedprivseg.core.config import Scenario, read_scenario
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.toml_text import MOST_DEEP, apply_settings, parse_toml, read_toml, read_with_base
from fedprivseg.governance.policy.profile import read_policy
from fedprivseg.study.run import load_scenario

QUICKSTART = ROOT / "simulations" / "quickstart.toml"
FOLDER = "/data/数据𠮷野"

TOO_LONG = "1" * 5000
"""A whole number that Python itself refuses to read (it reads 4,300 digits)."""

WILD = {
    "arrays": ("x = " + "[" * 3000 + "]" * 3000, f"more than {MOST_DEEP} deep"),
    "inline tables": ("x = " + "{a = " * 3000 + "1" + "}" * 3000, f"more than {MOST_DEEP} deep"),
    "dotted key": (".".join("a" * 3000) + " = 1", f"more than {MOST_DEEP} deep"),
    "header": ("[" + ".".join("a" * 3000) + "]", f"more than {MOST_DEEP} deep"),
    "digits": (f"seed = {TOO_LONG}", "more than 64 bits"),
    "hexadecimal": ("seed = 0x" + "f" * 20000, "more than 64 bits"),
    "one above": (f"seed = {2**63}", "more than 64 bits"),
    "one below": (f"x = [1, {{y = {-(2**63) - 1}}}]", "more than 64 bits"),
    "infinity": ("x = -inf", "holds -inf"),
    "not a number": ("x = nan", "holds nan"),
    "NUL": ('x = "a\\u0000b"', "without NUL"),
    "NUL in a key": ('"a\\u0000b" = 1', "without NUL"),
}


@pytest.fixture
def own(tmp_path):
    """A folder with sites/ and simulations/ of its own."""
    for name in ("sites", "simulations"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def files(tmp_path):
    """A function that writes TOML files, by name, and returns what the first is with its base."""

    def written(**texts):
        (tmp_path / "deeper").mkdir()
        for name, text in texts.items():
            (tmp_path / f"{name.replace('__', '/')}.toml").write_text(text)
        return read_with_base(tmp_path / f"{next(iter(texts))}.toml")

    return written


def test_a_file_lies_over_its_base_key_by_key(files):
    """Tables merge at any depth, the file's own keys win, a list is replaced; a base's path is relative to who states it."""
    found = files(
        own='base = "deeper/one.toml"\n[a]\nx = 1\n[a.deep]\nlist = [9]\n',
        deeper__one='base = "../two.toml"\nname = "one"\n[a]\nx = 2\ny = 2\n',
        two='name = "two"\n[a]\ny = 3\nz = 3\n[a.deep]\nlist = [1, 2]\nkept = true\n',
    )
    assert found == {"name": "one", "a": {"x": 1, "y": 2, "z": 3, "deep": {"list": [9], "kept": True}}}


@pytest.mark.parametrize(("name", "left"), [("fedavg", {}), ("pooled", {"variant": "v", "parameters": {"rounds": 2}})])
def test_another_method_takes_nothing_from_that_of_the_base(files, name, left):
    base = '[method]\nname = "pooled"\nvariant = "v"\nparameters = {rounds = 2}\n'
    assert files(own=f'base = "two.toml"\nmethod = {{name = "{name}"}}\n', two=base) == {
        "method": {"name": name, **left}
    }


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ({"own": 'base = "own.toml"'}, ["own.toml", "leads back"]),
        ({"own": 'base = "two.toml"', "two": 'base = "own.toml"'}, ["own.toml", "two.toml", "leads back"]),
        ({"own": 'base = "absent.toml"'}, ["own.toml", "no such file", "absent.toml"]),
        ({"own": 'base = "two.toml"', "two": "x = "}, ["own.toml", "two.toml", "not valid TOML"]),
        ({"own": "base = 3"}, ["own.toml", "given 3"]),
    ],
)
def test_a_base_that_cannot_be_used_is_named_with_its_file(files, texts, names):
    with pytest.raises(ScenarioError) as caught:
        files(**texts)
    for name in names:
        assert name in str(caught.value)


def _marked(path):
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().removeprefix(codecs.BOM_UTF8))


def test_a_byte_order_mark_changes_nothing(own):
    (own / "sites/centre1/policy.toml").write_text('profile = "open-research"\n')
    plain = load_scenario(own / "simulations/quickstart.toml").sha256
    for name in ("simulations/quickstart.toml", "sites/centre1/site.toml", "sites/centre1/policy.toml"):
        _marked(own / name)
    assert load_scenario(own / "simulations/quickstart.toml").sha256 == plain
    assert read_policy(own / "sites/centre1/policy.toml").profile == "open-research"


@pytest.mark.parametrize(("encoding", "says"), [("utf-16", "byte 0 is 0xff"), ("cp1252", "is not UTF-8 text")])
def test_another_encoding_is_named_as_such(tmp_path, encoding, says):
    path = tmp_path / "x.toml"
    path.write_bytes('question = "Hôpital?"\n'.encode(encoding))
    with pytest.raises(ScenarioError, match=f"{says}.*save it as UTF-8"):
        read_toml(path)


@pytest.mark.parametrize(("text", "says"), WILD.values(), ids=WILD)
def test_what_is_beyond_the_limits_is_refused_in_a_short_sentence(tmp_path, text, says):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["sites/centre1/site.toml", "sites/centre1/policy.toml"])
def test_a_sites_files_have_the_same_limits(own, name):
    (own / name).write_text(WILD["arrays"][0])
    with pytest.raises(ScenarioError, match="deep; write it flatter"):
        load_scenario(own / "simulations/quickstart.toml")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("x=" + "[" * 3000, "deep"),
        (".".join("a" * 3000) + "=1", "deep"),
        (f"seed={TOO_LONG}", "64 bits"),
        (f"grid.height={2**63}", "64 bits"),
        ("resources.memory_gib=inf", "holds inf"),
        ("data.source=\udcff", "no text in UTF-8"),
        (("data.source", "/data/\udcff"), "no text in UTF-8"),
        (("data.source", "a\0b"), "without NUL"),
        ("=1", "key=value"),
        ("x" * 5000, "5000 characters"),
        ("seed=[" + "1, " * 5000 + "]", "characters"),
    ],
)
def test_a_wild_setting_is_refused_in_a_short_sentence(setting, says):
    with pytest.raises(ScenarioError) as caught:
        load_scenario(QUICKSTART, [setting])
    assert says in str(caught.value)
    assert len(str(caught.value)) < 900


def test_the_largest_and_the_deepest_that_are_allowed():
    assert parse_toml(f"a = [{2**63 - 1}, {-(2**63)}]", "x") == {"a": [2**63 - 1, -(2**63)]}
    parse_toml("a = " + "[" * (MOST_DEEP - 1) + "]" * (MOST_DEEP - 1), "x")


def test_a_value_that_is_given_as_a_value_is_never_read_as_text():
    """What `json.dumps` makes of a character outside of the basic plane, two halves, is no TOML."""
    assert load_scenario(QUICKSTART, [("data.source", FOLDER)]).data.source == FOLDER
    for text in ('a"b', "1", "true", 'x\ny = "z"', "[a]", "a\\u0041"):
        assert apply_settings({}, [("data.source", text)]) == {"data": {"source": text}}
    assert apply_settings({}, [f"data.source={FOLDER}"]) == {"data": {"source": FOLDER}}


def test_one_setting_sets_one_value():
    assert apply_settings({}, ["x=1\ny=2"]) == {"x": "1\ny=2"}


def _either(path, given=()):
    """What came of it: a scenario that can be written and read again, or a sentence."""
    try:
        scenario = load_scenario(path, given)
    except ScenarioError as fault:
        return str(fault)
    assert Scenario.model_validate_json(scenario.model_dump_json()).sha256 == scenario.sha256
    return "a scenario"


_ANY = st.characters()
"""Halves of characters too: as such Python shows bytes of the command line that are not UTF-8."""

_SCALARS = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.dates()
    | st.datetimes()
    | st.times()
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abz_-", min_size=1), inner, max_size=3),
)
_KEYS = st.sampled_from(
    sorted(
        {*Scenario.model_fields, *read_toml(QUICKSTART)}
        | {"data.source", "data.seed", "grid.height", "grid.spacing", "method.parameters", "method.parameters.views"}
        | {
            "policy.restrict",
            "policy.restrict.all",
            "study.consent",
            "study.agreement",
            "study.today",
            "resources.gpus",
        }
        | {
            "study.consent.withdraws",
            "method.name",
            "method.variant",
            "protections",
            "deadline_s",
            "x",
            "a..b",
            "",
            ".",
        }
    )
)
# The fixture is read, never written: it need not be made again for each example.
_MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_MANY
@given(st.binary(max_size=200))
def test_any_bytes_are_a_scenario_or_refused(tmp_path, raw):
    (tmp_path / "x.toml").write_bytes(raw)
    assert _either(tmp_path / "x.toml")


@_MANY
@given(st.data())
def test_a_scenario_with_bytes_changed_is_a_scenario_or_refused(own, data):
    raw = bytearray(QUICKSTART.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw) - 1))
        raw[start : start + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    path = own / "simulations" / "wild.toml"
    path.write_bytes(raw)
    assert _either(path)


@_MANY
@given(st.dictionaries(_KEYS, _VALUES, max_size=3))
def test_any_values_are_a_scenario_or_refused(own, values):
    content = {**read_toml(QUICKSTART), **{key: value for key, value in values.items() if "." not in key}}
    path = own / "simulations" / "wild.toml"
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    assert _either(path, list(values.items()))


@_MANY
@given(
    st.lists(
        st.builds("{}={}".format, _KEYS, st.text(_ANY, max_size=12) | st.text('[]{}"=.1-e,\n ', max_size=12)),
        max_size=3,
    )
)
def test_any_setting_is_taken_or_refused(given_texts):
    assert _either(QUICKSTART, given_texts)


@_MANY
@given(st.text(_ANY, max_size=20))
def test_any_text_after_set_is_taken_or_refused(text):
    assert _either(QUICKSTART, [text])
