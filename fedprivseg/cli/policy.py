"""``fedprivseg policy``: what the rules of a scenario's sites come to, before anything runs."""

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

app = typer.Typer(help="The sites' policies: what they let out, and what changes between two.", no_args_is_help=True)


@app.command()
def profiles(as_json: AsJson = False) -> None:
    """The profiles that a policy can stand on, and what each covers. None is legal advice."""
    from fedprivseg.governance.policy.profile import profile_names, read_profile

    found = [read_profile(name) for name in profile_names()]
    if as_json:
        typer.echo(json.dumps([profile.model_dump(mode="json") for profile in found]))
        return
    rows = [[each.profile, ", ".join(each.kinds) or "nothing", str(each.max_level), each.says] for each in found]
    print_table("", ["profile", "lets out", "up to level", "covers"], rows)


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
    from fedprivseg.runtime.site.techniques import techniques_of
    from fedprivseg.study.simulated_sites import parties_in  # loads more than a wrong request should wait for

    folder = out or asked.folder
    # Agreements of another scenario say nothing about this one.
    ours = (folder / "scenario.json").exists() and read_scenario(folder).sha256 == asked.sha256
    parties = parties_in(folder, asked) if ours else {}
    found = preview_policy(asked, resolve(asked.method).declared, techniques_of(asked), parties)
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
                "strategy": [_told(one) for one in each.judged],
            }
            for each in found
        ]
        typer.echo(
            json.dumps(
                {"withheld": blocked, "remain": remain, "quorum": asked.quorum, "next": next_step, "decisions": entries}
            )
        )
    else:
        if refused:
            print_table("refused", ["site", "what", "rule", "clause", "reason"], _grouped(refused))
        if graded := _graded(found):
            print_table(
                "de-identification (clause 5.2)",
                ["site", "what", "utility", "confidentiality", "techniques", "Table 2 says"],
                graded,
            )
        console = open_console()
        names = ", ".join(blocked) or "no site"
        console.print(
            f"{asked.method.name}: {names} would be withheld; {remain} of {len(asked.sites)} remain", highlight=False
        )
    if remain < asked.quorum:
        ended = f"{remain} sites would remain, the quorum is {asked.quorum}"
        raise QuorumError("; ".join([ended, *next_step]))
    if next_step and not as_json:
        typer.echo(f"next: {next_step[0]}")


@app.command()
def diff(
    one: Annotated[str, typer.Argument(metavar="A", help="A policy.toml, or a profile's name.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    scenario: Annotated[Path | None, typer.Option(help="Say too what changes for this scenario's method.")] = None,
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
    """Which command mends what an agreement lacks, if it is that."""
    if "agreement.absent" in rules:
        return ["`fedprivseg agreement new SCENARIO` drafts the agreements; give it the same --set and --out"]
    if "agreement.unsigned" in rules:
        return [f"`fedprivseg agreement sign {folder} --as site`, and `--as server`, sign what was drafted"]
    return []


def _grouped(refused: list[PolicyPreview]) -> list[list[str]]:
    """One row for all payloads of a site that the same rule refuses for the same reason."""
    groups: dict[tuple[str, Decision], list[str]] = {}
    for each in refused:
        what = groups.setdefault((each.site, each.decision), [])
        if each.kind not in what:
            what.append(each.kind)
    return [
        [site, ", ".join(what), decision.rule, decision.clause, decision.reason]
        for (site, decision), what in groups.items()
    ]


def _told(judged: Judged) -> dict[str, object]:
    return {
        **judged.grading.model_dump(mode="json", exclude={"of"}),
        "techniques": judged.techniques,
        "verdict": judged.verdict,
        "sentence": judged.sentence,
    }


def _graded(found: Sequence[PolicyPreview]) -> list[list[str]]:
    """One row for each way in which a kind is graded, with all sites that grade it so."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for each in found:
        for judged in each.judged:
            row = (
                judged.kind,
                judged.grading.utility,
                judged.grading.confidentiality,
                ", ".join(judged.techniques) or "none",
                f"{judged.verdict}{' (refused)' if judged.refused else ''}",
            )
            sites = groups.setdefault(row, [])
            if each.site not in sites:
                sites.append(each.site)
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
    from fedprivseg.runtime.site.techniques import techniques_of
    from fedprivseg.study.scenarios import load_scenario

    asked = load_scenario(scenario, settings)
    exports = resolve(asked.method).declared
    verdicts = []
    for policy in (before, after):
        content = policy.model_dump(mode="json", exclude_none=True)
        site = asked.sites[0].model_copy(update={"policy": content})
        alone = asked.model_copy(update={"sites": (site,), "policy": asked.policy.model_copy(update={"restrict": {}})})
        foreseen = preview_policy(alone, exports, techniques_of(alone))
        verdicts.append({(each.kind, each.purpose): each.decision for each in foreseen})
    sentences: dict[str, list[str]] = {}
    for (kind, purpose), now in verdicts[1].items():
        was = verdicts[0][kind, purpose]
        if was.allowed and not now.allowed:
            sentences.setdefault(f"refused now ({now.rule}): {now.reason}", []).append(f"{kind} for {purpose}")
        elif now.allowed and not was.allowed:
            sentences.setdefault(f"let out now; before it was refused ({was.rule}).", []).append(
                f"{kind} for {purpose}"
            )
    changes = [f"In {asked.name}, {', '.join(what)}: {words}" for words, what in sentences.items()]
    return changes or [f"Nothing changes for {asked.name}."]
