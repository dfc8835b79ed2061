"""What a finished run gave away: the battery of attacks on what its sites' ledgers show as released.

This is a measurement by whoever simulates, who holds every site's images and can therefore be the judge. An attack itself is
given the released payloads and what its adversary is declared to know, and nothing else (`attacks.attack.View`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fedprivseg
from fedprivseg.attacks import choose
from fedprivseg.attacks.base import FULL, SMALL, Progress
from fedprivseg.core.arrays import save_arrays
from fedprivseg.core.compute import threads
from fedprivseg.core.documents import write_document
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import require_writable
from fedprivseg.core.leakage_result import Budget, Leakage
from fedprivseg.core.lock import alone
from fedprivseg.core.records import digest
from fedprivseg.core.results import check_files, read_result, read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.methods import resolve
from fedprivseg.runtime.site.context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.leakage.codes import attack_codes
from fedprivseg.study.leakage.part import Drafts, Part
from fedprivseg.study.leakage.population import attack_people
from fedprivseg.study.leakage.scene import AttackSession
from fedprivseg.study.leakage.updates import attack_updates


def attack_run(
    run: Path,
    budget: Budget = "small",
    attacks: Sequence[str] = (),
    sites: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> Leakage:
    """Attack the finished run in `run`; writes ``attacks.json``, and pictures to ``attacks.safetensors`` if the scenario
    shows images. What an interrupted battery had finished is not attacked again. budget: ``small`` attacks the first site,
    ``full`` all of them, longer. attacks, sites: names; none is all.

    Raises RequestError for an unknown name, a folder without a finished run or with damaged files, or one that somebody else
    works in; LedgerError if a stored payload is not in its site's ledger as released.
    """
    read_result(run)
    require_writable(run)
    with alone(run):
        return _attack(run, budget, attacks, sites, progress)


def _attack(run: Path, budget: Budget, attacks: Sequence[str], sites: Sequence[str], progress: Progress) -> Leakage:
    check_files(run)
    scenario = read_scenario(run)
    names = sorted(site.name for site in scenario.sites)
    if unknown := sorted(set(sites) - set(names)):
        raise RequestError(f"unknown site {unknown[0]!r}; the sites of this run are: {', '.join(names)}")
    if len(names) < 2:
        raise RequestError("the run has one site; attackers here use what other sites have, so there must be another")
    drawers, tellers, inverts = choose(attacks)
    victims = list(sites) or (names if budget == "full" else names[:1])
    method = resolve(scenario.method)
    benches = {
        name: SiteRuntime(SiteContext(SiteConfiguration.read(RunFolder(run).site(name).configuration), scenario))
        for name in names
    }
    stamp = digest(
        f"{fedprivseg.__version__} {budget} {scenario.sha256} {digest((run / 'result.json').read_bytes())}".encode()
    )
    drafts = Drafts(run, stamp, pictures=scenario.report.images)
    parts: list[Part] = []
    worst: dict[str, Part] = {}
    with threads(scenario.resources.cpus):
        for site in victims:
            scene = AttackSession(run, scenario, method, benches, site, FULL if budget == "full" else SMALL, progress)
            pieces = (
                [*attack_codes(scene, "images", drawers), *attack_codes(scene, "masks", drawers)] if drawers else []
            )
            pieces += attack_updates(scene, inverts) if inverts else []
            for piece in [*pieces, *attack_people(scene, tellers)]:
                part = drafts.part(piece)
                parts.append(part)
                if piece.subject not in worst or part.worst > worst[piece.subject].worst:
                    worst[piece.subject] = part
    result = Leakage(
        scenario_sha256=scenario.sha256,
        method=method.name,
        variant=method.variant,
        protections=tuple(config.name for config in scenario.protections),
        budget=budget,
        sites=tuple(victims),
        auxiliary="training slices of the other sites",
        redrawn=tuple(one for part in parts for one in part.redrawn),
        inferred=tuple(one for part in parts for one in part.inferred),
        left_out=tuple(dict.fromkeys(why for part in parts for why in part.left_out)),
        seconds=sum(part.seconds for part in parts),
    )
    if scenario.report.images:
        shown = {name: value for part in worst.values() for name, value in part.shown.items()}
        save_arrays(run / "attacks.safetensors", shown)
    write_document(run / "attacks.json", result.model_dump(mode="json"))
    drafts.forget()
    return result
