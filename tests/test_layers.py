"""The ranks of the rooms: imports run one way (`[tool.importlinter]` in pyproject.toml says which)."""

from __future__ import annotations

import ast
import subprocess
import sys

from conftest import BRIEF, ROOT, tiny_settings

PACKAGE = ROOT / "fedprivseg"


def test_imports_run_one_way():
    """Between the rooms, inside governance, and in no circle; also imports inside functions and for type checkers."""
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))",
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_modules_are_loaded_by_their_names():
    """What import-linter cannot read is not written: a name that is put together, or a module under another name."""
    allowed = {
        "__init__.py",
        "runtime/engines/__init__.py",
        "imaging/dicom/library.py",
    }
    for path in PACKAGE.rglob("*.py"):
        if str(path.relative_to(PACKAGE)) not in allowed:
            text = path.read_text(encoding="utf-8")
            assert "import_module" not in text, path
            assert "__import__" not in text, path
            assert "sys.modules" not in text or path == PACKAGE / "imaging/__init__.py", path


def test_a_run_loads_neither_cedar_nor_dicom(phantom, tmp_path):
    """A run that decides on no access and reads no DICOM, with its report, loads no code of either; nor does importing it."""
    settings = [*tiny_settings(phantom), *BRIEF, "method.parameters.views=1"]
    code = f"""
import sys
from pathlib import Path
from fedprivseg import load_scenario, simulate
def loaded():
    named = sorted(name for name in sys.modules if name.split('.')[0] in ('cedarpy', 'pydicom', 'dicomanonymizer', 'dcm2niix'))
    return named + sorted(name for name in sys.modules if name.startswith('fedprivseg.imaging.dicom.conversion'))
assert not loaded(), ('importing', loaded())
folder = Path({str(tmp_path / "run")!r})
simulate(load_scenario(Path({str(ROOT / "simulations" / "quickstart.toml")!r}), {settings!r}), folder)
assert not loaded(), ('running', loaded())
from fedprivseg.study import pipeline
pipeline.report(folder)
assert not loaded(), ('the report', loaded())
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_server_loads_no_images():
    """The server app never imports nibabel: it has no way to read an image."""
    code = (
        "import sys, fedprivseg.runtime.server.server_app; "
        "sys.exit('nibabel' in sys.modules or 'fedprivseg.imaging' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_site_code_keeps_no_module_state():
    """Ray reuses workers between hospitals: site code assigns nothing mutable at module level."""
    for path in [path for room in ("runtime/site", "methods", "governance") for path in (PACKAGE / room).rglob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                continue
            assert not isinstance(value, ast.List | ast.Dict | ast.Set), (
                f"{path.name} line {node.lineno}: a mutable global"
            )
            assert not any(isinstance(inner, ast.Global) for inner in ast.walk(node)), (
                f"{path.name}: a global statement"
            )
