"""The offices of a simulated hospital: who orders and approves there, and whom it tells of a leak. Roles, no persons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import tomli_w

from fedprivseg.policy.agreement import BreachPlan
from fedprivseg.policy.response import RESPONSE, default_plan
from fedprivseg.policy.roles import Title

STAFF = "staff.toml"

OFFICES: Mapping[str, tuple[Title, str]] = MappingProxyType(
    {
        "chief": (Title.CHIEF, "cardiology"),
        "data-manager-1": (Title.DATA_MANAGER, "records-office"),
        "data-manager-2": (Title.DATA_MANAGER, "records-office"),
    }
)
"""By id: title and department."""


def appoint(home: Path, site: str, breach: BreachPlan | None) -> None:
    """Write the staff and the response plan of the hospital whose folder is `home`, as far as they are not there. breach: what
    its agreement says of leaks, None without an agreement."""
    if not (home / STAFF).exists():
        staff = [{"id": name, "title": title.value, "department": place} for name, (title, place) in OFFICES.items()]
        (home / STAFF).write_text(tomli_w.dumps({"staff": staff}), encoding="utf-8")
    if not (home / RESPONSE).exists():
        plan = default_plan(site, breach)
        (home / RESPONSE).write_text(tomli_w.dumps(plan.model_dump(mode="json")), encoding="utf-8")
