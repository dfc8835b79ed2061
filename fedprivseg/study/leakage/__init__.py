"""What a finished run gave away: all attacks on what its sites' ledgers show as released.

This is a measurement by whoever simulates, who holds every site's images and can therefore evaluate. An attack itself is
given the released payloads and what its adversary is declared to know, and nothing else (`attacks.base.View`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fedprivseg
from fedprivseg.attacks import ATTACKS, choose
from fedprivseg.attacks.base import FULL, SMALL, Attack, Inference, Progress, Reconstruction, UpdateAttack, silent
from fedprivseg.core.arrays import save_arrays
from fedprivseg.core.compute import threads
from fedprivseg.core.documents import write_document
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import require_writable
from fedprivseg.core.leakage_result import UPDATES, Budget, Leakage
from fedprivseg.core.lock import alone
from fedprivseg.core.records import digest
from fedprivseg.core.results import check_files, read_result, read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.methods import Method, resolve
from fedprivseg.methods.method import CodedMethod
from fedprivseg.methods.rounds import Rounds
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.leakage.attack_session import AttackSession
from fedprivseg.study.leakage.codes import reconstruct_from_codes
from fedprivseg.study.leakage.partial import AttackTask, Drafts, PartialResult
from fedprivseg.study.leakage.population import infer
from fedprivseg.study.leakage.updates import reconstruct_from_updates


def attack_run(
    run: Path,
    budget: Budget = "small",
    attacks: Sequence[str] = (),
    sites: Sequence[str] = (),
    progress: Progress = silent,
) -> Leakage:
    """Attack a finished run; writes ``attacks.json``, and pictures to ``attacks.safetensors`` if the scenario shows images.

    What an interrupted session had finished is not attacked again.

    Args:
        run: the run's folder.
        budget: ``small`` attacks the first site, ``full`` all of them, longer.
        attacks: their names; none is all.
        sites: the names of those that are attacked; none is what the budget says.
        progress: called while an attack is under way.

    Raises:
        RequestError: an unknown name, a folder without a finished run or with damaged files, or one that somebody else works
            in.
        LedgerError: a stored payload is not in its site's ledger as released.
    """
    read_result(run)
    require_writable(run)
    with alone(run):
        return _attack(RunFolder(run), budget, attacks, sites, progress)


def _attack(
    run: RunFolder, budget: Budget, attacks: Sequence[str], sites: Sequence[str], progress: Progress
) -> Leakage:
    check_files(run.path)
    scenario = read_scenario(run.path)
    names = sorted(site.name for site in scenario.sites)
    if unknown := sorted(set(sites) - set(names)):
        raise RequestError(f"unknown site {unknown[0]!r}; the sites of this run are: {', '.join(names)}")
    if len(names) < 2:
        raise RequestError("the run has one site; attackers here use what other sites have, so there must be another")
    chosen = choose(attacks)
    plugins = ATTACKS.packages(attack.name for attack in chosen)
    victims = list(sites) or (names if budget == "full" else names[:1])
    method = resolve(scenario.method)
    runtimes = {
        name: SiteRuntime(SiteContext(SiteConfiguration.read(run.site(name).configuration), scenario)) for name in names
    }
    stamp = f"format 3 {fedprivseg.__version__} {plugins} {budget} {scenario.sha256} {digest(run.result.read_bytes())}"
    drafts = Drafts(run.path, digest(stamp.encode()), pictures=scenario.report.images)
    found: list[PartialResult] = []
    worst: dict[str, PartialResult] = {}
    with threads(scenario.resources.cpus):
        for site in victims:
            effort = FULL if budget == "full" else SMALL
            for task in _tasks(AttackSession(run.path, scenario, method, runtimes, site, effort, progress), chosen):
                one = drafts.result(task)
                found.append(one)
                if task.subject not in worst or one.worst > worst[task.subject].worst:
                    worst[task.subject] = one
    result = Leakage(
        scenario_sha256=scenario.sha256,
        method=method.name,
        variant=method.variant,
        protections=tuple(config.name for config in scenario.protections),
        plugins=plugins,
        budget=budget,
        sites=tuple(victims),
        auxiliary="training slices of the other sites",
        streams=_streams(method, tested=any(len(runtimes[name].testing()) for name in victims)),
        reconstructions=tuple(one for part in found for one in part.reconstructions),
        inferences=tuple(one for part in found for one in part.inferences),
        left_out=tuple(dict.fromkeys(why for part in found for why in part.left_out)),
        seconds=sum(part.seconds for part in found),
    )
    if scenario.report.images:
        shown = {name: value for part in worst.values() for name, value in part.shown.items()}
        save_arrays(run.attack_arrays, shown)
    write_document(run.attacks, result.model_dump(mode="json"))
    drafts.forget()
    return result


def _streams(method: Method, *, tested: bool) -> tuple[str, ...]:
    """What sites release under `method` that pictures may be reconstructed from, attacked or not: updates where it averages
    weights, codes where it sends them, or both. tested: whether any site has test slices."""
    updates = [UPDATES] if isinstance(method.in_rounds, Rounds) else []
    sent = [sent.side for sent in method.sends if sent.side == "train" or tested]
    answered = isinstance(method, CodedMethod) and method.answering and tested
    return (*updates, *dict.fromkeys(sent), *(("answers",) if answered else ()))


def _tasks(session: AttackSession, attacks: Sequence[type[Attack]]) -> list[AttackTask]:
    """The attacks on one site: on its codes, on its updates, on its patients."""
    codes = [attack for attack in attacks if issubclass(attack, Reconstruction)]
    updates = [attack for attack in attacks if issubclass(attack, UpdateAttack)]
    people = [attack for attack in attacks if issubclass(attack, Inference)]
    tasks = []
    if codes:
        tasks += reconstruct_from_codes(session, "images", codes) + reconstruct_from_codes(session, "masks", codes)
    if updates:
        tasks += reconstruct_from_updates(session, updates)
    return tasks + infer(session, people)
