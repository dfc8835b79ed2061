"""The layers of the package: imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fedprivseg"

# Lower layers first. A module may import from lower layers and from its own part, never from a neighbour or above.
LAYERS = (
    {
        "records",
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


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fedprivseg"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fedprivseg.")}
    return found


def _rank(part: str) -> int:
    return next(rank for rank, parts in enumerate(LAYERS) if part in parts)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    part = _part(path)
    for other in _imports(path) - {part}:
        assert (part, other) not in FORBIDDEN, f"{part} must never import {other}"
        allowed = _rank(other) < _rank(part) or (part, other) in NEIGHBOURS
        assert allowed, f"{part} (layer {_rank(part)}) imports {other} (layer {_rank(other)})"


def test_server_loads_no_images():
    """The server app never imports nibabel: it has no way to read an image."""
    code = "import sys, fedprivseg.server.app; sys.exit('nibabel' in sys.modules or 'fedprivseg.data' in sys.modules)"
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
