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
    {"records", "errors", "seeds", "compute", "progress"},
    {"config", "data", "nets", "policy", "measures", "protections", "results", "findings"},
    {"methods", "attacks", "messages"},
    {"site", "server"},
    {"engines"},
    {
        "run",
        "report",
        "report_figures",
        "prediction",
        "comparison",
        "comparison_page",
        "comparison_tables",
        "benchmark",
        "leakage",
        "hospitals",
        "wards",
        "withdrawal",
        "compliance",
        "compliance_storage",
        "compliance_access",
        "compliance_transport",
        "thresholds",
        "dicom_intake",
        "deidentification",
        "compliance_strategy",
        "safekeeping",
        "archiving",
        "breach",
        "compliance_destruction",
        "custody",
        "disposal",
        "disposal_order",
        "disposal_proof",
        "evidence",
        "expiry",
        "inventory",
        "trace",
        "trace_attempt",
        "trace_figure",
        "trace_forms",
        "trace_page",
        "trace_prov",
        "trace_server",
        "trace_site",
    },
    {
        "display",
        "starter",
        "terminal",
        "cli",
        "policy_cli",
        "access_cli",
        "inquiry_cli",
        "data_cli",
        "deidentify_cli",
        "ledger_cli",
        "vault_cli",
        "archive_cli",
        "destroy_cli",
        "lifecycle_cli",
        "trace_cli",
    },
)
FORBIDDEN = {("methods", "data"), ("methods", "policy"), ("attacks", "data"), ("attacks", "policy"), ("server", "data")}
NEIGHBOURS = {  # within a layer: who may use whom, besides itself; clauses use the report of compliance for its types alone
    ("access_cli", "inquiry_cli"),
    ("archive_cli", "vault_cli"),
    ("archiving", "hospitals"),
    ("benchmark", "report"),
    ("benchmark", "run"),
    ("breach", "hospitals"),
    ("cli", "display"),
    ("cli", "starter"),
    ("cli", "terminal"),
    ("comparison_page", "comparison"),
    ("comparison_page", "comparison_tables"),
    ("comparison_page", "report_figures"),
    ("comparison_tables", "comparison"),
    ("compliance", "compliance_access"),
    ("compliance", "compliance_destruction"),
    ("compliance", "compliance_storage"),
    ("compliance", "compliance_strategy"),
    ("compliance", "compliance_transport"),
    ("compliance", "hospitals"),
    ("compliance", "withdrawal"),
    ("compliance_destruction", "compliance"),
    ("compliance_destruction", "disposal_proof"),
    ("compliance_destruction", "expiry"),
    ("compliance_storage", "compliance"),
    ("compliance_strategy", "compliance"),
    ("compliance_transport", "compliance"),
    ("custody", "hospitals"),
    ("data", "config"),
    ("disposal", "custody"),
    ("disposal", "disposal_order"),
    ("disposal", "inventory"),
    ("disposal_order", "custody"),
    ("disposal_order", "expiry"),
    ("disposal_order", "inventory"),
    ("disposal_proof", "custody"),
    ("disposal_proof", "inventory"),
    ("expiry", "inventory"),
    ("findings", "config"),
    ("hospitals", "wards"),
    ("inventory", "hospitals"),
    ("policy", "config"),
    ("prediction", "run"),
    ("protections", "config"),
    ("records", "errors"),
    ("report", "compliance"),
    ("report", "report_figures"),
    ("results", "config"),
    ("report", "thresholds"),
    ("report", "withdrawal"),
    ("run", "hospitals"),
    ("run", "withdrawal"),
    ("safekeeping", "hospitals"),
    ("safekeeping", "withdrawal"),
    ("trace_attempt", "trace"),
    ("trace_attempt", "trace_forms"),
    ("trace_attempt", "withdrawal"),
    ("trace_figure", "report_figures"),
    ("trace_figure", "trace"),
    ("trace_forms", "trace"),
    ("trace_page", "trace"),
    ("trace_page", "trace_figure"),
    ("trace_prov", "trace"),
    ("trace_server", "trace"),
    ("trace_site", "hospitals"),
    ("trace_site", "trace"),
    ("trace_site", "trace_attempt"),
    ("trace_site", "trace_forms"),
    ("withdrawal", "hospitals"),
    ("withdrawal", "inventory"),
}
COMMANDS = sorted(name for name in LAYERS[-1] if name.endswith("_cli"))
NEIGHBOURS |= {("cli", name) for name in COMMANDS} | {(name, "terminal") for name in COMMANDS}


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
