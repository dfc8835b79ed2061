"""A run's folder as a finished run leaves it, made in a moment: nothing was trained, every array is random."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
from conftest import ROOT, tiny_settings

from fedprivseg.core.kinds import IMAGE_CODE
from fedprivseg.core.records import digest
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.sitefolder.vault import open_vault
from fedprivseg.imaging.splits import Cohort
from fedprivseg.methods import resolve
from fedprivseg.study.run import load_scenario
from fedprivseg.study.simulated_sites import provision_sites

INTAKE_DAY = date(2026, 1, 1)
SEALED = 'policy.restrict.all={profile="open-research", at_rest="encrypted", retention_days=365}'
PLAIN = 'policy.restrict.all={profile="open-research", retention_days=365}'
SUBJECT = "C1D5H7"


def small_run(folder: Path, phantom: Path, *settings: str) -> Path:
    """A run of three sites on 1 March 2026: at each a vault, a ledger with an intake and two releases, and its shards at the
    server. settings: as after ``--set``; the first says whether vaults are sealed."""
    path = ROOT / "simulations/policy-open.toml"
    scenario = load_scenario(path, [*tiny_settings(phantom), "study.today=2026-03-01", *settings])
    folder.mkdir()
    cohorts = {site.name: Cohort((), ()) for site in scenario.sites}
    provision_sites(folder, scenario, frozenset({IMAGE_CODE}), phantom, folder.parent / "cache", cohorts)
    (folder / "scenario.json").write_text(scenario.model_dump_json())
    resolve(scenario.method).card.write(folder)
    draw = numpy_generator(0, "small run")
    keys = {}
    for site in scenario.sites:
        home = folder / "sites" / site.name
        key = SiteKey.load(SiteFolder(home).key) if (SiteFolder(home).key).exists() else None
        vault = open_vault(home)
        key = key or SiteKey.create(SiteFolder(home).key)
        keys[site.name] = key.public_hex
        for name in ("training-slices", "prediction-00000-ed"):
            vault.save(name, {"images": draw.random((4, 16, 16), np.float32)})
        for name in ("cohort.json", "intake.json"):
            facts = {"level": 3, "day": str(INTAKE_DAY)}
            (home / name).write_text(json.dumps({"subjects": [SUBJECT], "facts": facts, "recorded": True}))
        ledger = Ledger(home / "ledger.jsonl", key, site.name)
        ledger.append(
            "enrolment",
            {
                "class": "clinical image, structural",
                "day": str(INTAKE_DAY),
                "level": 3,
                "subjects": 1,
                "train": [key.pseudonym(SUBJECT)],
                "test": [],
                "type": "cine-mri",
            },
        )
        for number in range(2):
            body = draw.bytes(4000)
            shard = folder / "server/codes" / site.name / "send_image_codes" / f"{number:05d}.safetensors"
            shard.parent.mkdir(parents=True, exist_ok=True)
            shard.write_bytes(body)
            shard.with_suffix(".json").write_text(json.dumps({"sha256": digest(body), "shards": 2}))
            ledger.append(
                "release",
                {
                    "bytes": len(body),
                    "digest": digest(body),
                    "history": ["encode"],
                    "kind": "image-code",
                    "level": 3,
                    "number": number,
                    "purpose": "train",
                    "run": "small",
                },
            )
    for name in ("mapping.safetensors",):
        (folder / "server" / name).write_bytes(draw.bytes(3000))
    (folder / "server/metrics").mkdir()
    for site in scenario.sites:
        (folder / "server/metrics" / f"{site.name}.safetensors").write_bytes(draw.bytes(500))
    (folder / "server/identities.json").write_text(json.dumps(keys))
    (folder / "result.json").write_text("{}")
    (folder / "report.html").write_text("<img> of every site")
    return folder
