"""The layers of the package: imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BRIEF, ROOT, tiny_settings

import fedprivseg

PACKAGE = Path(__file__).parent.parent / "fedprivseg"

# Lower layers first. A module may import from lower layers and from its own part, never from a neighbour or above.
LAYERS = (
    {
        "records",
        "expected",
        "errors",
        "seeds",
        "cache",
        "compute",
        "progress",
        "files",
        "documents",
        "arrays",
        "lock",
        "pages",
        "toml_text",
    },
    {"config", "data", "nets", "policy", "measures", "protections", "results", "findings"},
    {"methods", "attacks", "messages"},
    {"site", "server"},
    {"engines"},
    {
        "agreements",
        "archiving",
        "benchmark",
        "breach",
        "comparison",
        "compliance",
        "deidentification",
        "dicom_intake",
        "disposal",
        "evidence",
        "hospitals",
        "inventory",
        "leakage",
        "notices",
        "preflight",
        "prediction",
        "report",
        "run",
        "safekeeping",
        "scenarios",
        "thresholds",
        "trace",
        "wards",
        "withdrawal",
    },
    {"cli"},
)
FORBIDDEN = {("methods", "data"), ("methods", "policy"), ("attacks", "data"), ("attacks", "policy"), ("server", "data")}
NEIGHBOURS = {  # within a layer: who may use whom, besides itself
    ("agreements", "hospitals"),
    ("agreements", "run"),
    ("archiving", "hospitals"),
    ("arrays", "documents"),
    ("arrays", "files"),
    ("benchmark", "preflight"),
    ("benchmark", "report"),
    ("benchmark", "run"),
    ("benchmark", "scenarios"),
    ("breach", "hospitals"),
    ("cache", "files"),
    ("cache", "errors"),
    ("compliance", "disposal"),
    ("compute", "errors"),
    ("compliance", "evidence"),
    ("compliance", "withdrawal"),
    ("data", "config"),
    ("disposal", "hospitals"),
    ("disposal", "inventory"),
    ("disposal", "notices"),
    ("documents", "errors"),
    ("documents", "files"),
    ("expected", "records"),
    ("files", "errors"),
    ("findings", "config"),
    ("hospitals", "wards"),
    ("inventory", "hospitals"),
    ("lock", "errors"),
    ("notices", "hospitals"),
    ("policy", "config"),
    ("progress", "files"),
    ("protections", "config"),
    ("records", "errors"),
    ("report", "compliance"),
    ("report", "evidence"),
    ("report", "thresholds"),
    ("report", "withdrawal"),
    ("results", "config"),
    ("run", "hospitals"),
    ("run", "preflight"),
    ("run", "scenarios"),
    ("run", "withdrawal"),
    ("safekeeping", "hospitals"),
    ("safekeeping", "notices"),
    ("safekeeping", "withdrawal"),
    ("trace", "evidence"),
    ("toml_text", "errors"),
    ("trace", "hospitals"),
    ("trace", "withdrawal"),
    ("withdrawal", "hospitals"),
    ("withdrawal", "inventory"),
    ("withdrawal", "notices"),
}


def _part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


IMPORTERS = {"import_module", "__import__", "library"}
"""Functions that import what they are given; `library` is the package's own, of DICOM."""

OPEN = {"importlib": {"import_module", "metadata", "resources"}, "runpy": set(), "pkgutil": set(), "imp": set()}
"""Modules by which anything can be imported, and what of them may be used."""


class _Reader(ast.NodeVisitor):
    """The imports of a module, however they are written. unread: lines with one whose name does not stand there."""

    def __init__(self, module: str) -> None:
        self.package = module.rpartition(".")[0]
        self.found: set[str] = set()
        self.unread: list[int] = []

    def visit_Import(self, node):
        for alias in node.names:
            if alias.asname and alias.name in (*OPEN, "sys", "fedprivseg"):
                self.unread.append(node.lineno)  # under another name its uses are not seen
            self._add(alias.name, node)

    def visit_ImportFrom(self, node):
        module = f"{'.' * node.level}{node.module or ''}"
        if module in OPEN and any(alias.asname or alias.name not in OPEN[module] for alias in node.names):
            self.unread.append(node.lineno)
        for alias in node.names:
            self._add(f"{module}{'.' if node.module else ''}{alias.name}", node)

    def visit_FunctionDef(self, node):
        if node.name not in IMPORTERS:  # what such a function imports stands where it is called
            self.generic_visit(node)

    def visit_Call(self, node):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in IMPORTERS:
            for given in [*node.args[:1], *(keyword.value for keyword in node.keywords)] or [None]:
                self._given(given, node)
        elif name in ("exec", "eval") and isinstance(node.func, ast.Name):
            self.unread.append(node.lineno)
        elif name in ("get", "pop", "setdefault") and _is_modules(node.func.value):
            self._given(node.args[0], node)
            return
        self.generic_visit(node)

    def visit_Subscript(self, node):
        if _is_modules(node.value):
            self._given(node.slice, node)
        else:
            self.generic_visit(node)

    def visit_Compare(self, node):
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn) and _is_modules(node.comparators[0]):
            self._given(node.left, node)
        else:
            self.generic_visit(node)

    def visit_Attribute(self, node):
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        if _is_modules(node) or (owner in OPEN and node.attr not in OPEN[owner]):
            self.unread.append(node.lineno)
        if owner == "fedprivseg" and not node.attr.startswith("__"):
            self.found.add(fedprivseg._HOMES.get(node.attr, node.attr))
        self.generic_visit(node)

    def _given(self, node, where):
        """A name that is given as text; of an f-string its constant beginning."""
        if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
            node = node.values[0]
            if node.value.count(".") < 2:  # the part of the package is not in it
                self.unread.append(where.lineno)
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            self.unread.append(where.lineno)
        else:
            self._add(node.value, where)

    def _add(self, name, where):
        bare = name.lstrip(".")
        if up := len(name) - len(bare):
            bare = f"{self.package.rsplit('.', up - 1)[0] if up > 1 else self.package}.{bare}"
        parts = bare.split(".")
        if parts[:2] == ["sys", "modules"]:
            self.unread.append(where.lineno)
        if parts[0] == "fedprivseg" and len(parts) > 1:
            self.found.add(fedprivseg._HOMES.get(parts[1], parts[1]))


def _is_modules(node):
    return isinstance(node, ast.Attribute) and node.attr == "modules" and getattr(node.value, "id", "") == "sys"


def _imports(path: Path, text: str | None = None) -> tuple[set[str], list[int]]:
    """The parts of the package that the module at `path` imports, and the lines of imports that cannot be read."""
    relative = path.relative_to(PACKAGE.parent).with_suffix("")
    reader = _Reader(".".join(relative.parts))
    reader.visit(ast.parse(path.read_text(encoding="utf-8") if text is None else text))
    return reader.found, reader.unread


def _rank(part: str) -> int:
    return next(rank for rank, parts in enumerate(LAYERS) if part in parts)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    part = _part(path)
    found, unread = _imports(path)
    assert not unread, f"{path.name} imports something in line {unread[0]} that cannot be read: write its name"
    for other in found - {part}:
        assert (part, other) not in FORBIDDEN, f"{part} must never import {other}"
        allowed = _rank(other) < _rank(part) or (part, other) in NEIGHBOURS
        assert allowed, f"{part} (layer {_rank(part)}) imports {other} (layer {_rank(other)})"


@pytest.mark.parametrize(
    "text",
    [
        "import fedprivseg.governance.policy.gate",
        "from fedprivseg import policy",
        "from fedprivseg.governance.policy import gate",
        "from .. import policy",
        "from ..policy import gate",
        "from ..policy.gate import Gate",
        "import importlib; importlib.import_module('fedprivseg.governance.policy.gate')",
        "from importlib import import_module; load = import_module('fedprivseg.governance.policy')",
        "import importlib; importlib.import_module('..policy.gate', 'fedprivseg.methods')",
        "from importlib import import_module; import_module(f'fedprivseg.governance.policy.{name}')",
        "import importlib; importlib.import_module(name='fedprivseg.governance.policy')",
        "__import__('fedprivseg.governance.policy.gate')",
        "import sys; sys.modules['fedprivseg.governance.policy.gate']",
        "import sys; sys.modules.get('fedprivseg.governance.policy.gate')",
        "import fedprivseg; fedprivseg.governance.policy.gate.RULES",
        "def later():\n    from ..policy import gate",
    ],
)
def test_every_way_of_importing_is_seen(text):
    found, _ = _imports(PACKAGE / "methods" / "any.py", text)
    assert "policy" in found or _imports(PACKAGE / "methods" / "any.py", text)[1]
    assert ("methods", "policy") in FORBIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "import importlib; importlib.import_module(name)",
        "from importlib import import_module; import_module('fedpriv' + 'seg.policy')",
        "from importlib import import_module; import_module(f'fedprivseg.{name}')",
        "__import__(name)",
        "import sys; sys.modules[name]",
        "import sys; next(m for n, m in sys.modules.items() if 'gate' in n)",
        "import sys; known = sys.modules",
        "from sys import modules",
        "from importlib import util",
        "import importlib; importlib.reload(gate)",
        "from importlib import __import__ as load",
        "from importlib import import_module as load; load('fedprivseg.governance.policy')",
        "import importlib as loader; loader.reload(gate)",
        "import runpy; runpy.run_module('x')",
        "exec('import x')",
    ],
)
def test_an_import_that_cannot_be_read_is_a_fault(text):
    assert _imports(PACKAGE / "methods" / "any.py", text)[1]


def test_a_run_loads_neither_cedar_nor_dicom(phantom, tmp_path):
    """A run that decides on no access and reads no DICOM, with its report, loads no code of either; nor does importing it."""
    settings = [*tiny_settings(phantom), *BRIEF, "method.parameters.views=1"]
    code = f"""
import sys
from pathlib import Path
from fedprivseg.run import load_scenario, simulate
def loaded():
    named = sorted(name for name in sys.modules if name.split('.')[0] in ('cedarpy', 'pydicom', 'dicomanonymizer', 'dcm2niix'))
    return named + sorted(name for name in sys.modules if name.startswith('fedprivseg.imaging.dicom.conversion'))
assert not loaded(), ('importing', loaded())
folder = Path({str(tmp_path / "run")!r})
simulate(load_scenario(Path({str(ROOT / "simulations" / "quickstart.toml")!r}), {settings!r}), folder)
assert not loaded(), ('running', loaded())
from fedprivseg.report.page import write_report
write_report(folder)
assert not loaded(), ('the report', loaded())
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_server_loads_no_images():
    """The server app never imports nibabel: it has no way to read an image."""
    code = "import sys, fedprivseg.runtime.server.server_app; sys.exit('nibabel' in sys.modules or 'fedprivseg.imaging' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_site_code_keeps_no_module_state():
    """Ray reuses workers between hospitals: site code assigns nothing mutable at module level."""
    for path in [
        *(PACKAGE / "site").glob("*.py"),
        *(PACKAGE / "methods").glob("*.py"),
        *(PACKAGE / "policy").glob("*.py"),
    ]:
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
