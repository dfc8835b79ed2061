"""One simulated hospital without a run around it: its folder as `provision_sites` leaves it, as far as access goes."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from fedprivseg.core.records import Subject
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.study.synthetic_people import people

TODAY = date(2026, 3, 1)


def hospital(run: Path, name: str = "centre1", subjects: int = 12) -> Path:
    """The folder of the hospital `name` in `run`, with staff, accounts and records of patients P00, P01..."""
    home = run / "sites" / name
    (home / "vault").mkdir(parents=True)
    SiteKey.create(home / "vault" / "key.pem")
    station = {
        "site": {"name": name, "centre": 1},
        "data": {},
        "release": "release",
        "cache": "cache",
        "today": TODAY.isoformat(),
        "server_key": None,
    }
    (home / "station.json").write_text(json.dumps(station))
    folk = [
        Subject(f"P{n:02}", 1, "train", True, {"ED": 0, "ES": 1}, Path("image"), None, ("LV", "MYO", "RV"))
        for n in range(subjects)
    ]
    people(SiteFolder(home), folk, "cine-mri", (), TODAY, 0)
    return home


def entry(subject: str, item: str, **changes: object) -> dict[str, object]:
    """One line of ``records.jsonl``: a report of today on a patient of the doctor of the group rhythm."""
    return {
        "subject": subject,
        "item": item,
        "department": "cardiology",
        "source": "care",
        "level": 4,
        "granularity": "informed",
        "reported": TODAY.isoformat(),
        "doctors": ["attending-rhythm"],
        "group": "rhythm",
        **changes,
    }


def hold(home: Path, *entries: dict[str, object]) -> None:
    """Let the hospital hold these records and no others."""
    (home / "records.jsonl").write_text("".join(json.dumps(each) + "\n" for each in entries))


def know(home: Path, *accounts: dict[str, object]) -> None:
    """Let these accounts be the only ones."""
    (home / "accounts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in accounts))


def own(subject: str, **changes: object) -> dict[str, object]:
    """The account of a patient whose identity was proved."""
    return {"id": f"account-{subject}", "kinship": "self", "patients": [subject], "verified": True, **changes}
