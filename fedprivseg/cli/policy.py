"""``fedprivseg policy``: a preview of what the policies of a scenario's sites allow, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedprivseg.cli.options import AsJson, RunOut, ScenarioFile, Set
from fedprivseg.cli.terminal import open_console, print_table
from fedprivseg.core.errors import QuorumError, RequestError

if TYPE_CHECKING:
    from fedprivseg.core.records import Decision
    from fedprivseg.governance.policy.grading import Judged
    from fedprivseg.governance.policy.preview import PolicyPreview
    from fedprivseg.governance.policy.profile import SitePolicy

app = typer.Typer(
    help="The sites' policies: what they allow to leave, and what changes between two.", no_args_is_help=True
)


@app.command()
def profiles(as_json: AsJson = False) -> None:
    """The profiles that a policy can be based on, and what each covers. None is legal advice."""
    from fedprivseg.governance.policy.profile import profile_names, read_profile

    found = [read_profile(name) for name in profile_names()]
    if as_json:
        typer.echo(json.dumps([profile.model_dump(mode="json") for profile in found]))
        return
    rows = [[each.profile, ", ".join(each.kinds) or "nothing", str(each.max_level), each.says] for each in found]
    print_table("", ["profile", "allows", "up to level", "covers"], rows)


@app.command()
def check(
    scenario: ScenarioFile,
    settings: Set = None,
    out: RunOut = None,
    as_json: AsJson = False,
) -> None:
    """What would be refused, at which site, by which rule. Exit status 3 if fewer sites than the quorum would remain."""
    from fedprivseg.study.scenarios import load_scenario

    asked = load_scenario(scenario, settings or [])

    from fedprivseg.core.results import read_scenario
    from fedprivseg.governance.policy.preview import preview_policy
    from fedprivseg.methods import resolve
    from fedprivseg.runtime.site.payload_techniques import techniques_of
    from fedprivseg.study.simulated_sites import parties_in  # loads more than a wrong request should wait for

    folder = out or asked.folder
    # Agreements of another scenario say nothing about this one.
    ours = (folder / "scenario.json").exists() and read_scenario(folder).sha256 == asked.sha256
    parties = parties_in(folder, asked) if ours else {}
    method = resolve(asked.method)
    found = preview_policy(asked, method.declared, techniques_of(method, asked.protections), parties)
    refused = [each for each in found if not each.decision.allowed]
    blocked = sorted({each.site for each in refused})
    remain = len(asked.sites) - len(blocked)
    next_step = _next_step({each.decision.rule for each in refused}, folder)
    if as_json:
        entries = [
            {
                "site": each.site,
                "kind": each.kind,
                "purpose": each.purpose,
                **vars(each.decision),
                "technique_advice": [_advice(one) for one in each.judged],
            }
            for each in found
        ]
        answer = {"blocked": blocked, "remain": remain, "quorum": asked.quorum, "next": next_step, "decisions": entries}
        typer.echo(json.dumps(answer))
    else:
        if refused:
            print_table("refused", ["site", "what", "rule", "clause", "reason"], _grouped(refused))
        if graded := _graded(found):
            columns = ["site", "what", "utility", "confidentiality", "techniques", "Table 2 says"]
            print_table("de-identification (clause 5.2)", columns, graded)
        names = ", ".join(blocked) or "no site"
        outcome = f"{asked.method.name}: {names} would be blocked; {remain} of {len(asked.sites)} remain"
        open_console().print(outcome, highlight=False)
    if remain < asked.quorum:
        ended = f"{remain} sites would remain, the quorum is {asked.quorum}"
        raise QuorumError("; ".join([ended, *next_step]))
    if next_step and not as_json:
        typer.echo(f"next: {next_step[0]}")


@app.command()
def diff(
    one: Annotated[str, typer.Argument(metavar="A", help="A policy.toml, or a profile's name.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    scenario: Annotated[Path | None, typer.Option(help="Also say what changes for this scenario's method.")] = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """What changes from policy A to policy B, in plain words."""
    from fedprivseg.governance.policy.profile import differences

    before, after = _policy(one), _policy(other)
    sentences = list(differences(before, after))
    if scenario is not None:
        sentences += _changes(scenario, settings or [], before, after)
    if as_json:
        typer.echo(json.dumps(sentences))
        return
    for sentence in sentences or ["Nothing changes."]:
        typer.echo(sentence)


def _next_step(rules: set[str], folder: Path) -> list[str]:
    """Which command supplies what an agreement lacks, if that is the reason."""
    if "agreement.absent" in rules:
        return ["`fedprivseg agreement new SCENARIO` drafts the agreements; give it the same --set and --out"]
    if "agreement.unsigned" in rules:
        return [f"`fedprivseg agreement sign {folder} --as site`, and `--as server`, sign what was drafted"]
    return []


def _grouped(refused: list[PolicyPreview]) -> list[list[str]]:
    """One row for all payloads of a site that the same rule refuses for the same reason."""
    groups: dict[tuple[str, Decision], dict[str, None]] = {}
    for each in refused:
        groups.setdefault((each.site, each.decision), {})[each.kind] = None
    return [[site, ", ".join(what), said.rule, said.clause, said.reason] for (site, said), what in groups.items()]


def _advice(judged: Judged) -> dict[str, object]:
    return {
        **judged.grading.model_dump(mode="json", exclude={"of"}),
        "techniques": judged.techniques,
        "verdict": judged.verdict,
        "sentence": judged.sentence,
    }


def _graded(found: Sequence[PolicyPreview]) -> list[list[str]]:
    """One row for each way in which a kind is graded, with all sites that grade it so."""
    groups: dict[tuple[str, ...], dict[str, None]] = {}
    for site, judged in ((each.site, one) for each in found for one in each.judged):
        grades = judged.grading.utility, judged.grading.confidentiality
        verdict = f"{judged.verdict}{' (refused)' if judged.refused else ''}"
        groups.setdefault((judged.kind, *grades, ", ".join(judged.techniques) or "none", verdict), {})[site] = None
    return [[", ".join(sites), *row] for row, sites in groups.items()]


def _policy(name: str) -> SitePolicy:
    from fedprivseg.governance.policy.profile import profile_names, read_policy, read_profile

    if name in profile_names():
        return read_profile(name)
    if not Path(name).is_file():
        raise RequestError(f"{name!r} is neither a file nor a profile; the profiles are: {', '.join(profile_names())}")
    return read_policy(Path(name))


def _changes(scenario: Path, settings: list[str], before: SitePolicy, after: SitePolicy) -> list[str]:
    """What a site under `before` would do in the scenario that it would not under `after`, and the other way round."""
    from fedprivseg.governance.policy.preview import preview_policy
    from fedprivseg.methods import resolve
    from fedprivseg.runtime.site.payload_techniques import techniques_of
    from fedprivseg.study.scenarios import load_scenario

    asked = load_scenario(scenario, settings)
    method = resolve(asked.method)
    verdicts = []
    for policy in (before, after):
        content = policy.model_dump(mode="json", exclude_none=True)
        site = asked.sites[0].model_copy(update={"policy": content})
        alone = asked.model_copy(update={"sites": (site,), "policy": asked.policy.model_copy(update={"restrict": {}})})
        decided = preview_policy(alone, method.declared, techniques_of(method, alone.protections))
        verdicts.append({(each.kind, each.purpose): each.decision for each in decided})
    sentences: dict[str, list[str]] = {}
    for (kind, purpose), now in verdicts[1].items():
        was = verdicts[0][kind, purpose]
        if was.allowed != now.allowed:
            outcome = (
                f"allowed now; before it was refused ({was.rule})."
                if now.allowed
                else f"refused now ({now.rule}): {now.reason}"
            )
            sentences.setdefault(outcome, []).append(f"{kind} for {purpose}")
    changes = [f"In {asked.name}, {', '.join(what)}: {words}" for words, what in sentences.items()]
    return changes or [f"Nothing changes for {asked.name}."]
