"""Every command that a README shows runs as it is written, one after the other, in a scratch copy of the project.

Scenarios are cut tiny there (a coarse grid, a few steps, three phantom subjects a site, the inline engine); words in capitals
stand for a release, a run, a subject. What would still take minutes is listed below with its reason.
"""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import tomli_w
from conftest import ROOT
from typer.main import get_command
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.results import read_result
from fedprivseg.core.toml_text import read_with_base
from fedprivseg.governance.sitefolder.notes import PARTICIPANTS, Notes
from fedprivseg.imaging.splits import COHORT

READMES = [
    ROOT / "README.md",
    *sorted(
        path for part in ("fedprivseg", "simulations", "sites", "tests") for path in (ROOT / part).rglob("README.md")
    ),
]

START = {"start_subjects": 2, "start_steps": 2}

TINY = {
    "privacy-sf": {"image_steps": 2, "mask_steps": 2, "mapping_steps": 2, "views": 2, "test_views": 1, **START},
    "fedavg": {"rounds": 1, "local_steps": 1, "test_views": 1, **START},
    "local-only": {"rounds": 1, "local_steps": 1, "test_views": 1, "cross_site": False, **START},
}
"""Parameters with which a method trains for a second and learns nothing."""

KEPT = {
    "benchmark-acdc": ("fedavg", "local-only"),
    "few-acdc": ("fedavg",),
    "leakage-acdc": ("answer-2-bit",),
    "minutes-acdc": ("fedavg",),
    "shift-acdc": ("fedavg",),
}
"""Of a folder of scenarios, those that run: each costs seconds, and what the command does is the same."""

SHORTER = (
    ("rounds=15", "rounds=1 --set method.parameters.local_steps=1", "300 steps on the U-Net take a minute"),
    ("fedprivseg attack ", "fedprivseg attack --attacks alignment,linkage ", "the whole battery takes minutes"),
    ("--folds 4", "--folds 2", "the phantom of the tests has three subjects a centre"),
    ("--seeds 0,1,2", "--seeds 0", "each seed costs seconds, and what the command does is the same"),
    ("--requests 5000", "--requests 50", "five thousand decisions take seconds and say the same"),
)
"""(words, what stands in their place, why)."""

NOT_RUN = (
    ("pip install", "installs packages"),
    ("-m pytest", "is this test"),
    ("tests/benchmarks/peers.py", "installs another framework and trains for minutes"),
    ("tests/benchmarks/mask_bound.py", "trains attackers for minutes"),
    ("fedprivseg deploy", "is run by tests/runtime/deployment/test_guide.py, as processes of their own"),
    ("--engine deployment", "is run by tests/runtime/engines/test_deployment.py"),
    ("tests/device/measure.py", "needs a GPU"),
    ("fedprivseg watch ", "serves a page until it is stopped"),
)
"""(words of a command, why it is not run); a script that is named has to be there."""


def commands(text):
    """The command lines of the fenced blocks of a README: comments off, a line that is joined by && as several."""
    found = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language not in ("", "sh", "bash"):
            continue
        for line in block.splitlines():
            if re.match(r"(\S*/)?(fedprivseg|python3?|for)\s", line):
                found += [part.strip() for part in re.sub(r"\s+#\s.*$", "", line).split("&&")]
    return found


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A copy of sites and simulations in which every scenario is cut tiny; commands run there."""
    shutil.copytree(ROOT / "sites", tmp_path / "sites")
    shutil.copytree(ROOT / "simulations", tmp_path / "simulations")
    contents = {path: read_with_base(path) for path in (tmp_path / "simulations").rglob("*.toml")}
    for path, content in contents.items():
        if path.stem not in KEPT.get(path.parent.name, (path.stem,)):
            path.unlink()
            continue
        content |= {"engine": "inline", "grid": {"height": 32, "width": 32, "spacing": 6.0}, "resources": {"cpus": 1}}
        content["data"] = {**content.get("data", {}), "subjects": 3, "folds": 2}
        method = content["method"]
        method["parameters"] = {**method.get("parameters", {}), **TINY[method["name"]]}
        path.write_text(tomli_w.dumps(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _ready(line, release, dicom, run, subjects):
    """`line` with real things in the place of its placeholders. subjects: by run, whom it was about the first time, since a
    destruction takes the site's own notes."""
    image = next(release.glob("Testing/*/*_sa.nii.gz"))
    named = re.search(r"runs/[\w/-]+", line)
    place = named[0] if named else run
    if "SUBJECT" in line and place not in subjects:
        subjects[place] = _subject(Path(place))
    values = {
        "DATA": release,
        ".../OpenDataset": release,
        "RUN": run,
        "SUBJECT": subjects.get(place, ""),
        "SHARD-SHA256": _shard(run) if "SHARD" in line else "",
        "image.nii.gz": image,
        "FILE.nii.gz": image,
        "FOLDER": image.parent,
        "DICOM": dicom,
        "OUT": "-".join(line.split()[1:3]),
    }
    for word, value in values.items():
        line = re.sub(rf"(?<![\w/.-]){re.escape(word)}(?![\w-])", str(value), line)
    return line


def _subject(run):
    """Who trains at centre 1."""
    return COHORT.validate_json(Notes(run / "sites/centre1").read(PARTICIPANTS)).train[0].code


def _shard(run):
    """The digest of a shard that the server of `run` stores."""
    record = next(iter(sorted(glob.glob(f"{run}/server/codes/centre1/*/*.json"))))
    with open(record) as file:
        return json.load(file)["sha256"]


def _run(line):
    words = [part for word in shlex.split(line) for part in (sorted(glob.glob(word)) if "*" in word else [word])]
    done = CliRunner().invoke(app, words[1:])
    said = f"{line}\n{done.output}\n{done.exception!r}"
    assert done.exit_code == 0, said


@pytest.fixture
def dicom(tmp_path_factory):
    """A folder with one DICOM image."""
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("dicomanonymizer")
    pytest.importorskip("dcm2niix")
    from pydicom.data import get_testdata_file

    folder = tmp_path_factory.mktemp("dicom")
    image = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False))
    image.BodyPartExamined = "HEART"
    image.save_as(folder / "image.dcm")
    return folder


@pytest.mark.timeout(1800)  # some fifty commands, one after the other
def test_every_command_runs_as_it_is_written(scratch, phantom, dicom):
    ran, subjects = [], {}
    run = "runs/quickstart-privacy-sf-improved-0"
    for readme in READMES:
        for line in commands(readme.read_text(encoding="utf-8")):
            if script := next((word for word in shlex.split(line) if word.endswith(".py")), None):
                assert (ROOT / script).is_file(), line
            if any(words in line for words, _ in NOT_RUN) or "venv" in line.split():
                continue
            line = line.removeprefix(".venv/bin/")
            for words, shorter, _ in SHORTER:
                line = line.replace(words, shorter)
            if loop := re.fullmatch(r"for (\w+) in (\S+); do (.*); done", line):
                name, pattern, body = loop.groups()
                for each in sorted(glob.glob(pattern)):
                    _run(body.replace(f"${name}", each))
                continue
            _run(_ready(line, phantom, dicom, run, subjects))
            ran.append(line)
    assert len(ran) > 40
    assert read_result(scratch / run).method == "privacy-sf"
    for readme in READMES:
        for block in re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            # pandas is the reader's own; everything else runs.
            lines = [line.replace(", pandas", "") for line in block.splitlines() if not line.startswith("pandas.")]
            exec("\n".join(lines), {})


def _named():
    """(file, command) for everything in backticks that begins as a command, in READMEs and headers of scenarios."""
    headers = sorted((ROOT / "simulations").rglob("*.toml"))
    for path in [*READMES, *headers]:
        text = path.read_text(encoding="utf-8").replace("\n# ", " ").replace("\n", " ")
        for command in re.findall(r"(?<!`)`(fedprivseg [^`]+)`(?!`)", text):
            yield path.name, command


def test_every_command_that_is_named_exists():
    """Commands in running text: the command is there, and so is each of its options."""
    found = list(_named())
    assert found
    for name, text in found:
        words = text.replace("...", "").split()[1:]
        command = get_command(app)
        while words and getattr(command, "commands", None):
            if words[0].startswith("-"):
                break
            choices = words.pop(0).split("|")
            missing = [choice for choice in choices if choice not in command.commands]
            assert not missing, f"{name}: `{text}`: no command {missing}"
            command = command.commands[choices[0]]
        options = {option for each in command.params for option in each.opts} | {"--help", "--install-completion"}
        for word in words:
            if re.match(r"--[a-z]", word):
                assert word.partition("=")[0].strip("`.,;") in options, f"{name}: `{text}`: no option {word}"
