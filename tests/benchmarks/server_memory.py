"""How much memory and time a server needs for 10, 100 and 1,000 sites: stub sites that answer at once, rounds of averaging.

    python tests/benchmarks/server_memory.py [--sites 10,100,1000] [--mb 0.01,2] [--rounds 2] [--durable]

Every case is a process of its own. In it the server holds its roll call, then sends weights to all sites, gets as many back
and averages them (Flower's FedAvg), round by round. The sites are no processes: they sign a payload and remember nothing, so
all of the memory but that of one payload is the server's. ``--durable``: with the fsyncs of the server's ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LAYERS = 16
NUMBERS = "numbers"


class StubGrid:
    """Nodes that sign what they are told to send: their counts, then `weights` under their own name."""

    def __init__(self, sites, weights):
        from flwr.supercore.task_identity import TaskIdentity

        from fedprivseg.crypto.identity import SiteKey
        from fedprivseg.governance.ledger.checkpoints import Checkpoint

        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.names, self.weights = dict(enumerate(sites, start=2)), weights
        self.keys = {node: SiteKey.new() for node in self.names}
        self.heads = {node: Checkpoint(self.names[node], 1, "0" * 64).signed(key) for node, key in self.keys.items()}
        self.replies, self.count = {}, 0

    def get_node_ids(self):
        return list(self.names)

    def push_messages(self, messages):
        for message in messages:
            self.count += 1
            name = message.metadata.__dict__["_message_id"] = f"order-{self.count}"
            self.replies[name] = self._reply(message)
            yield name

    def pull_messages(self, message_ids):
        return [self.replies.pop(name) for name in message_ids if name in self.replies]

    def _reply(self, message):
        from flwr.app import Message

        from fedprivseg.core.kinds import STATUS, WEIGHTS
        from fedprivseg.core.records import Payload, digest
        from fedprivseg.crypto.identity import statement
        from fedprivseg.runtime.wire import Released, read_order, write_reply

        node = message.metadata.dst_node_id
        order, site, key = read_order(message.content).order, self.names[node], self.keys[node]
        if order.action == "describe":
            names = [f"{what}_{side}" for what in ("subjects", "slices") for side in ("train", "test")]
            payload = Payload(STATUS, site, "describe", {name: np.array([3]) for name in names})
        else:
            assert order.answer is not None
            number = order.number
            payload = Payload(WEIGHTS, site, "train", self.weights, shard=number, shards=number + 1)
        body = payload.encode()
        signature = key.sign(statement("run", site, order.action, order.number, digest(body)))
        released = Released(body, signature, key.public_hex, self.heads[node], 0.01, 100.0, site=site)
        reply = Message(write_reply(released), reply_to=message)
        reply.metadata.__dict__["_message_id"] = f"reply-{self.count}"
        return reply


def resident_mb(line: str) -> float:
    """A line of this process's status, in MiB: VmRSS for now, VmHWM for the most since it was reset."""
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(f"{line}:"):
            return int(text.split()[1]) / 1024
    raise SystemExit("this system has no /proc")


def case(sites: int, mb: float, rounds: int, durable: bool) -> dict[str, float]:
    """One case, in this process. Times are of the processor."""
    import torch  # noqa: F401 - as a server has it loaded

    from fedprivseg.core.config import SiteConfig, read_scenario
    from fedprivseg.core.expected import MOST_WEIGHT, Array, Expected
    from fedprivseg.core.kinds import WEIGHTS
    from fedprivseg.core.runfolder import ServerFolder
    from fedprivseg.methods.aggregation import Update
    from fedprivseg.methods.flower_strategy import flower
    from fedprivseg.methods.method import Answers
    from fedprivseg.runtime.server.federation import GridFederation

    if not durable:
        os.fsync = lambda descriptor: None
    names = tuple(f"site{number:04d}" for number in range(sites))
    asked = read_scenario(ROOT / "simulations" / "quickstart.toml")
    scenario = asked.model_copy(update={"sites": tuple(SiteConfig(name=name) for name in names), "engine": "inline"})
    size = max(1, int(mb * 2**20 / 4 / LAYERS))
    weights = {f"layer{layer:02d}": np.full(size, 0.5, np.float32) for layer in range(LAYERS)}
    forms = {name: Array("float32", (size,), -MOST_WEIGHT, MOST_WEIGHT) for name in weights}
    with tempfile.TemporaryDirectory() as folder:
        grid = StubGrid(names, weights)
        loaded, begun = resident_mb("VmRSS"), time.process_time()
        federation = GridFederation(grid, scenario, ServerFolder(Path(folder) / "server"), "run", "cpu", at_once=1)
        met, met_s = resident_mb("VmRSS"), time.process_time() - begun
        Path("/proc/self/clear_refs").write_text("5")
        strategy, arrays, begun = flower(), weights, time.process_time()
        for number in range(1, rounds + 1):

            def made(site, number=number, arrays=arrays):
                return federation.answer(WEIGHTS, site, arrays, number)

            expected = Expected(WEIGHTS, "train", forms)
            replies = federation.ask("train", expected, number=number, answers=Answers(names, made))
            assert len(replies) == sites
            updates = {site: Update(payload.arrays, {}, 3.0, 1, 0.0) for site, payload in replies.items()}
            arrays = strategy.aggregate(number, arrays, updates)
            del replies, updates
        spent = time.process_time() - begun
        assert all(np.array_equal(value, weights[name]) for name, value in arrays.items())
        return {
            "sites": sites,
            "mb": mb,
            "loaded": loaded,
            "met": met,
            "peak": resident_mb("VmHWM"),
            "after": resident_mb("VmRSS"),
            "roll call": 1000 * met_s / sites,
            "round": 1000 * spent / rounds / sites,
        }


def main() -> None:
    """Run every case in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", default="10,100,1000")
    parser.add_argument("--mb", default="0.01,2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--durable", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        sites, mb = given.case.split(",")
        print(json.dumps(case(int(sites), float(mb), given.rounds, given.durable)))
        return
    columns = "loaded, MiB | after the roll call | peak in rounds | after | roll call, ms a site | a round, ms a site"
    print(f"| sites | MB each way | {columns} |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for mb in given.mb.split(","):
        for sites in given.sites.split(","):
            words = [sys.executable, __file__, "--case", f"{sites},{mb}", "--rounds", str(given.rounds)]
            done = subprocess.run(
                [*words, *(["--durable"] if given.durable else [])], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            memory = " | ".join(f"{found[name]:.0f}" for name in ("loaded", "met", "peak", "after"))
            print(f"| {sites} | {mb} | {memory} | {found['roll call']:.1f} | {found['round']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
