"""The roll call, with which every attempt of a run begins: each node says which site it is.

A node that says nothing, or that it is nobody of this run, is told of where a site is missing. Of several nodes that say they
are the same site, the one is it that signs with the key by which the site is known.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import final

from flwr.serverapp import Grid

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import PayloadError, QuorumError
from fedprivseg.core.expected import DESCRIBE
from fedprivseg.core.records import Order, digest
from fedprivseg.core.stage_config import Terms
from fedprivseg.runtime.server.exchange import Heard, Silence
from fedprivseg.runtime.server.intake import Intake
from fedprivseg.runtime.server.participants import Participants
from fedprivseg.runtime.wire import UNKNOWN, Failed, Released, Reply, printable

NODES_DEADLINE_S = 120.0
"""How long a server waits for the sites' nodes at most, in seconds."""

Claim = tuple[int, Reply]
"""A node, and what it said."""


def nodes_of(grid: Grid, wanted: int, terms: Terms) -> list[int]:
    """The nodes of `grid`, sorted: `wanted` of them, or, when their time is up, as many as have come.

    Raises:
        QuorumError: they are fewer than the quorum.
    """
    longest = min(NODES_DEADLINE_S, terms.deadline_s)
    begun, met = time.monotonic(), None
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        now = time.monotonic()
        if met is None and len(nodes) >= terms.quorum:
            met = now
        over = now - begun > longest
        if met is not None and (over or (terms.stragglers_s is not None and now - met > terms.stragglers_s)):
            return nodes
        if over:
            raise QuorumError(
                f"{len(nodes)} of {wanted} sites connected within {longest:g} s, the quorum is {terms.quorum}; "
                "start the others"
            )
        time.sleep(0.05)
    return nodes


@final
class RollCall:
    """What came of the nodes of a run that were asked who they are.

    Args:
        scenario: names the sites.
        heard: node by node, what came of it.
    """

    def __init__(self, scenario: Scenario, heard: Iterable[tuple[int, Heard]]) -> None:
        self._within = f"within {scenario.terms(DESCRIBE).deadline_s:g} s"
        self._claims: dict[str, list[Claim]] = {}
        names, strangers, self._unnamed = {site.name for site in scenario.sites}, set[str](), list[str]()
        for node, reply in heard:
            if isinstance(reply, Silence):
                continue
            if isinstance(reply, int):
                self._unnamed.append(f"a node could not start (Flower error code {reply}); its own log says why")
            elif isinstance(reply, PayloadError):
                self._unnamed.append(f"of a node: {reply}")
            elif isinstance(reply, Failed) and reply.site == UNKNOWN:
                failed = f"a node failed before it knew which site it is: {reply.error}, log id {reply.log_id}"
                self._unnamed.append(failed)
            elif reply.site not in names:
                strangers.add(reply.site)
            else:
                self._claims.setdefault(reply.site, []).append((node, reply))
        self._unnamed += [
            f"a node presents itself as {printable(name, 48)!r}, which is no site of this run"
            for name in sorted(strangers)
        ]

    def genuine(self, site: str, known: Intake) -> list[Claim]:
        """The nodes that say they are `site`: of several those that sign with the key by which it is known."""
        heard = self._claims.get(site, [])
        return heard if len(heard) < 2 else [each for each in heard if _speaks_for(site, each[1], known)]

    def found(self, participants: Participants, known: Intake) -> dict[str, Claim]:
        """The node of each site that takes part, with its reply. A site without one, or with several, has left the run.

        Args:
            participants: of the run.
            known: has the keys of sites that spoke in an earlier attempt.
        """
        found: dict[str, Claim] = {}
        for site in participants.sites:
            genuine = self.genuine(site, known)
            if len(genuine) == 1:
                (found[site],) = genuine
            elif heard := self._claims.get(site, []):
                why = PayloadError(f"{len(heard)} nodes present themselves as this site, and one can be it")
                participants.exclude(site, DESCRIBE, why)
            else:
                silent = f"did not present itself in {DESCRIBE!r} {self._within}"
                participants.fail(site, "; ".join([silent, *self._unnamed]))
        return found


def _speaks_for(site: str, reply: Reply, known: Intake) -> bool:
    """Whether what came in the roll call is signed with the key by which `site` is known."""
    return isinstance(reply, Released) and known.signed(site, Order(DESCRIBE), reply, digest(reply.body))
