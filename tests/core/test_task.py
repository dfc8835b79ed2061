"""What a task may be, and that nobody but its data set knows one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT
from pydantic import ValidationError

from fedprivseg.core.task import COLOURS, SegmentationTask, Structure, TimePoint, default_task


def _task(*names: str, **more: object) -> SegmentationTask:
    return SegmentationTask(structures=[Structure(name=n, label=at) for at, n in enumerate(names, start=1)], **more)


def test_names_labels_and_classes() -> None:
    task = _task("core", "rim", time_points=[TimePoint(name="before"), TimePoint(name="after")])
    assert (task.names, task.times, task.classes) == (("core", "rim"), ("before", "after"), 3)
    assert default_task().times == ("ED", "ES")


def test_colours_are_those_stated_or_go_round() -> None:
    many = _task(*(f"s{number}" for number in range(len(COLOURS) + 1)))
    assert list(many.colours.values()) == [dark for dark, _ in (*COLOURS, COLOURS[0])]
    assert list(many.lines.values()) == [light for _, light in (*COLOURS, COLOURS[0])]
    assert default_task().colours["LV"] == "#D55E00"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"structures": [{"name": "a", "label": 2}]}, "must be 1, 2, 3 and so on"),
        ({"structures": [{"name": "a", "label": 1}, {"name": "a", "label": 2}]}, "named twice"),
        ({"structures": [{"name": "left kidney", "label": 1}]}, "pattern"),
        ({"structures": [{"name": "../a", "label": 1}]}, "pattern"),
        ({"structures": [{"name": "a", "label": 1, "colour": "red"}]}, "pattern"),
        ({"time_points": []}, "at least 1"),
        ({"time_points": [{"name": "a"}, {"name": "a"}]}, "named twice"),
    ],
)
def test_what_is_no_task(content: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SegmentationTask.model_validate(content)


AT_HOME = ("imaging/mnms/", "imaging/phantom/", "core/format1.py")
"""Who may know the names of one task's structures and time points: its data set, and the reader of folders of format 1."""

WORDS = re.compile(r"\b(LV|MYO|RV|ED|ES)\b|\b(STRUCTURES|PHASES)\b")


def test_no_other_module_knows_a_structure_or_a_time_point() -> None:
    package = ROOT / "fedprivseg"
    found = []
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.html")]):
        name = path.relative_to(package).as_posix()
        if name.startswith(AT_HOME):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if WORDS.search(
                line.replace('"ES", "IVOCT"', "").replace('"DX", "ES"', "")
            ):  # modalities of DICOM: endoscopy
                found.append(f"{name}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def test_the_default_is_a_file_and_no_module() -> None:
    assert (Path(ROOT) / "fedprivseg/core/tasks/short-axis-cine.toml").is_file()
