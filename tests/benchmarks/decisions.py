"""How long a decision on access takes, beside bare calls of the engine under it.

    python tests/benchmarks/decisions.py [--requests 2000] [--policies 52] [--seed 0]

Draws a mixture of requests (staff, researchers, patients and guardians; all actions, levels and degrees of detail; sound and
faulty circumstances) and puts each of them in turn to: nothing at all (a function that refuses everything), cedarpy with one
policy, cedarpy with the same policies, cedarpy that has the entities of the request still to parse, and fedprivseg. Policies
and schema are parsed before. fedprivseg's time is from the frozen records to the ruling, so the line above it is what it can
be compared with. For one request in twenty there is cedarpy with policies and schema as text too, as its first example has
it. All share the machine's moods, since they take turns. `--policies` adds policies to the package's, as a hospital would.
Prints Markdown: medians and 99th percentiles in milliseconds, and how many requests were granted.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import cedarpy

from fedprivseg.core.records import Decision
from fedprivseg.governance.access import cedar_terms
from fedprivseg.governance.access.authorizer import Authorizer, CedarAuthorizer, Ruling
from fedprivseg.governance.access.roles import (
    Action,
    Context,
    Granularity,
    Guardian,
    Kinship,
    Patient,
    Principal,
    Project,
    Purpose,
    Record,
    Request,
    Staff,
    Title,
)

NOW = datetime(2024, 6, 3, 9, 0, tzinfo=UTC)
RARELY = 20
KEEP = frozenset({Action.SAVE, Action.COPY, Action.PRINT, Action.DOWNLOAD})
STUDY = frozenset({Action.RESEARCH, Action.TRAIN, Action.RELEASE})
ADDED = (
    '@id("hospital.{number}") @clause("house rule {number}") @says("Nobody of ward {number} downloads anything.")\n'
    'forbid (principal is Staff, action == Action::"download", resource) when {{ principal.department == "ward-{number}" }};\n'
)
ONE = '@id("one") permit (principal, action, resource) when { resource.level == 1 };'


class Nothing(Authorizer):
    """Refuses everything without looking: what calling and timing alone cost."""

    def decide(self, request: Request) -> Ruling:
        """See `Authorizer`."""
        return Ruling(Decision(False, "nothing", "Nothing is permitted."))


def mixture(count: int, seed: int) -> list[Request]:
    """`count` requests, most of which make sense."""
    draw = random.Random(seed)
    head = Staff("head", Title.CHIEF, "cardiology")
    rhythm = frozenset({"rhythm"})
    heads = [Staff(f"senior-{n}", Title.ATTENDING, "cardiology", rhythm, head, rights=KEEP) for n in range(3)]
    doctors = []
    for number in range(20):
        title, group = draw.choice([Title.ATTENDING, Title.RESIDENT]), frozenset({f"group-{number % 4}"})
        doctors.append(Staff(f"doctor-{number}", title, "cardiology", group, draw.choice(heads), rights=KEEP))
    project = Project("hearts", frozenset({"cine"}), 3, frozenset(Granularity), STUDY, NOW + timedelta(days=30))
    return [_request(draw, [head, *heads], doctors, project) for _ in range(count)]


def _request(draw: random.Random, heads: list[Staff], doctors: list[Staff], project: Project) -> Request:
    patient = f"patient-{draw.randrange(50)}"
    charge = draw.choice(doctors)
    record = Record(
        f"record-{draw.randrange(1000)}",
        patient,
        "cardiology",
        draw.choice(["cine", "cine", "ct"]),
        draw.choice([1, 2, 3, 3, 4, 4, 4, 5]),
        draw.choice(list(Granularity)),
        draw.randrange(150),
        doctors=(charge,),
        group=draw.choice(["", *charge.groups]),
        treating=frozenset({"nurse-1", "consultant"}),
        attending=frozenset({charge.id, "nurse-1"}),
        special=draw.random() < 0.1,
        infectious=draw.random() < 0.1,
        sensitive=draw.random() < 0.1,
        deidentified=draw.random() < 0.7,
    )
    principal: Principal
    kind = draw.choice(["doctor", "charge", "superior", "nurse", "researcher", "patient", "guardian"])
    if kind in ("doctor", "charge", "superior"):
        principal = {"doctor": draw.choice(doctors), "charge": charge, "superior": draw.choice(heads)}[kind]
        action, purpose = draw.choice([Action.VIEW, Action.VIEW, Action.SAVE, Action.PRINT]), Purpose.TREATMENT
    elif kind == "nurse":
        principal = Staff(f"nurse-{draw.randrange(4)}", Title.NURSE, "cardiology", frozenset({"group-1"}))
        action, purpose = Action.VIEW, Purpose.TREATMENT
    elif kind == "researcher":
        projects = frozenset({project}) if draw.random() < 0.8 else frozenset[Project]()
        principal = Staff("researcher", Title.RESEARCHER, "imaging", projects=projects)
        action, purpose = draw.choice(sorted(STUDY)), Purpose.RESEARCH
    else:
        who = draw.choice([patient, patient, "patient-x"])
        principal = Patient(who, verified=True, rights=KEEP)
        if kind == "guardian":
            kinship = draw.choice(list(Kinship))
            principal = Guardian("guardian", kinship, frozenset({who}), True, True, draw.random() < 0.5, KEEP)
        action, purpose = draw.choice([Action.QUERY, Action.QUERY, Action.DOWNLOAD]), Purpose.OWN_CARE
    context = Context(
        NOW - timedelta(seconds=draw.choice([0, 60, 600])),
        NOW - timedelta(hours=1) if draw.random() < 0.95 else None,
        purpose,
        encrypted=draw.random() < 0.95,
        integrity=True,
        second_factor=draw.random() < 0.5,
        controlled_place=draw.random() < 0.5,
        notified=draw.random() < 0.7,
        project="hearts" if kind == "researcher" else "",
    )
    return Request(principal, action, record, context)


def main() -> None:
    """Prints one row a way of deciding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--policies", type=int, default=0, help="how many in all, at least the package's")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    added = "".join(ADDED.format(number=n) for n in range(given.policies - len(CedarAuthorizer().policies)))
    folder = resources.files("fedprivseg.governance.access") / "cedar"
    packaged = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".cedar")), key=lambda e: e.name)
    text = "\n".join(entry.read_text(encoding="utf-8") for entry in packaged) + "\n" + added
    with tempfile.TemporaryDirectory() as place:
        house = Path(place) / "house.cedar"
        house.write_text(added, encoding="utf-8")
        ours = CedarAuthorizer([house] if added else [], clock=lambda: NOW, limit_s=60)
    asked = mixture(given.requests, given.seed)
    times, granted = measure(asked, ours, text, (folder / "schema.cedarschema").read_text(encoding="utf-8"))
    print(f"{len(ours.policies)} policies, {len(asked)} requests, {granted} of them granted.\n")
    print("| | median, ms | 99th percentile, ms |\n| --- | --- | --- |")
    for name, seconds in times.items():
        seconds.sort()
        median, high = (seconds[int(share * (len(seconds) - 1))] * 1e3 for share in (0.5, 0.99))
        print(f"| {name} | {median:.4f} | {high:.4f} |")


def measure(
    asked: list[Request], ours: CedarAuthorizer, text: str, schema_text: str
) -> tuple[dict[str, list[float]], int]:
    """Seconds of each way on each request, and how many requests are granted. Raises RuntimeError if bare cedarpy and the
    authorizer do not agree: then they were not given the same."""
    schema, policies = cedarpy.Schema.from_str(schema_text), cedarpy.PolicySet.from_str(text)
    one, nothing = cedarpy.PolicySet.from_str(ONE), Nothing()
    times: dict[str, list[float]] = {}
    granted = 0

    def timed(name: str, way: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        answer = way()
        times.setdefault(name, []).append(time.perf_counter() - begun)
        return answer

    for place, request in enumerate(asked):
        listed = cedar_terms.entities(request)
        entities = cedarpy.Entities.from_json_str(json.dumps(listed), schema)
        words = {
            "principal": cedar_terms.uid(type(request.principal).__name__, request.principal.id),
            "action": cedar_terms.uid("Action", request.action),
            "resource": cedar_terms.uid("Record", request.record.id),
            "context": cedar_terms.context_of(request.context, int(NOW.timestamp())),
        }
        timed("nothing", lambda: nothing.decide(request))  # noqa: B023 (called at once)
        timed("cedarpy, one policy", lambda: cedarpy.is_authorized(words, one, entities, schema))  # noqa: B023
        bare = timed("cedarpy, the same policies", lambda: cedarpy.is_authorized(words, policies, entities, schema))  # noqa: B023
        timed("cedarpy, entities as a list", lambda: cedarpy.is_authorized(words, policies, listed, schema))  # noqa: B023
        ruling = timed("fedprivseg", lambda: ours.decide(request))  # noqa: B023
        if place % RARELY == 0:
            timed("cedarpy, all from text", lambda: cedarpy.is_authorized(words, text, listed, schema_text))  # noqa: B023
        if bare.allowed != ruling.allowed or ruling.decision.rule == "access.fault":
            raise RuntimeError(f"cedarpy and the authorizer disagree on request {place}: {ruling.decision.rule}")
        granted += ruling.allowed
    return times, granted


if __name__ == "__main__":
    main()
