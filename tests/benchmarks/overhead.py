"""What a site-action costs beside what it moves: a stub action through the real gate, inline and on Ray, beside a plain
function call that copies the same bytes, raw Ray actors, and plain Flower.

    python tests/benchmarks/overhead.py [--rounds 5] [--only inline call ...]

A stub sends the weights that came back (`stub/`). Each contestant runs in a process of its own and moves the same payloads
there and back: 8 sites x 2 kB, 0.1 MB and 10 MB, 4 sites x 100 MB. Prints Markdown, the median over rounds after the first: ms
a site-action of wall clock and of CPU of the server's process (all of it inline; Ray's workers have their own), and the ratios.
`floor` is the call and the SHA-256 by which each party knows what it sends and gets, two each way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "stub"))

CASES = ((8, 2_000), (8, 100_000), (8, 10_000_000), (4, 100_000_000))
WORKERS = 2


def _exchanges(rounds: int) -> list[tuple[int, int]]:
    return [case for case in CASES for _ in range(rounds)]


def _timed(exchange: Callable[[int, int, int], None], rounds: int) -> Iterator[dict[str, float]]:
    """exchange: of so many sites and bytes, under a number."""
    for number, (sites, size) in enumerate(_exchanges(rounds)):
        cpu, wall = time.process_time(), time.perf_counter()
        exchange(sites, size, number)
        yield {"sites": sites, "bytes": size, "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def call(folder: Path, rounds: int) -> list[dict[str, float]]:
    """A function call that copies what it is given, and what it returns."""
    from stub_method import weights

    made = {size: weights(size, 0) for _, size in CASES}

    def exchange(sites: int, size: int, number: int) -> None:
        for _ in range(sites):
            there = made[size].tobytes()
            np.frombuffer(there, np.float32).tobytes()

    return list(_timed(exchange, rounds))


def floor(folder: Path, rounds: int) -> list[dict[str, float]]:
    """The same with the SHA-256 by which each party knows what it sends and gets."""
    from stub_method import weights

    made = {size: weights(size, 0) for _, size in CASES}

    def exchange(sites: int, size: int, number: int) -> None:
        for _ in range(sites):
            there = made[size].tobytes()
            back = np.frombuffer(there, np.float32).tobytes()
            for _ in range(2):
                hashlib.sha256(there)
                hashlib.sha256(back)

    return list(_timed(exchange, rounds))


def raw_ray(folder: Path, rounds: int) -> list[dict[str, float]]:
    """Two actors of Ray that return what they are given."""
    import ray
    from stub_method import weights

    ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="error", log_to_driver=False)

    @ray.remote(num_cpus=1)
    class Echo:
        def echo(self, array: np.ndarray) -> np.ndarray:
            return array

    actors = [Echo.remote() for _ in range(WORKERS)]
    made = {size: weights(size, 0) for _, size in CASES}

    def exchange(sites: int, size: int, number: int) -> None:
        ray.get([actors[site % WORKERS].echo.remote(made[size]) for site in range(sites)])

    found = list(_timed(exchange, rounds))
    ray.shutdown()
    return found


def flower(folder: Path, rounds: int) -> list[dict[str, float]]:
    """Flower's simulation, as its own quickstart has it."""
    import logging

    from flwr.app import ArrayRecord, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation
    from stub_method import weights

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    client, server, found = ClientApp(), ServerApp(), []

    @client.train()
    def echo(message, context):
        return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)

    @server.main()
    def main(grid, context):
        most = max(sites for sites, _ in CASES)
        while len(nodes := sorted(grid.get_node_ids())) < most:
            time.sleep(0.05)
        made = {size: weights(size, 0) for _, size in CASES}

        def exchange(sites: int, size: int, number: int) -> None:
            record = ArrayRecord([made[size]])
            contents = [RecordDict({"arrays": record}) for _ in range(sites)]
            messages = [Message(content, node, "train") for content, node in zip(contents, nodes, strict=False)]
            replies = [*grid.send_and_receive(messages)]
            assert len(replies) == sites
            assert not any(reply.has_error() for reply in replies)

        found.extend(_timed(exchange, rounds))

    run_simulation(
        server,
        client,
        num_supernodes=max(sites for sites, _ in CASES),
        backend_config={"init_args": {"num_cpus": WORKERS}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    return found


def _ours(engine: str, policy: dict[str, object]) -> Callable[[Path, int], list[dict[str, float]]]:
    def run(folder: Path, rounds: int) -> list[dict[str, float]]:
        from stub_method import TIMES, installed, prepared

        installed(folder / "plug-in")
        scenario = prepared(
            folder / "run",
            max(sites for sites, _ in CASES),
            _exchanges(rounds),
            engine,
            policy,
            cpus=WORKERS,
            sites_at_once=WORKERS,
            memory_gib=8,
        )
        from fedprivseg.runtime.engines import begun
        from fedprivseg.study.simulated_client import app

        with begun(scenario, folder / "run") as carry_out:
            carry_out(folder / "run", scenario, app)
        return json.loads((folder / "run/server" / TIMES).read_text())

    return run


CONTESTANTS: dict[str, Callable[[Path, int], list[dict[str, float]]]] = {
    "call": call,
    "floor": floor,
    "inline": _ours("inline", {}),
    "raw Ray": raw_ray,
    "Flower": flower,
    "ray": _ours("ray", {}),
}


def _measured(name: str, rounds: int) -> dict[tuple[int, int], tuple[float, float]]:
    """(wall, CPU) in ms a site-action by case, medians, of a contestant in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times"
        command = [sys.executable, __file__, "--contestant", name, "--rounds", str(rounds), "--out", str(out)]
        subprocess.run(command, check=True, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})
        times = json.loads(out.read_text())
    found = {}
    for case in CASES:
        own = [each for each in times if (each["sites"], each["bytes"]) == case][1:]
        found[case] = tuple(
            statistics.median(each[which] for each in own) / case[0] * 1e3 for which in ("wall_s", "cpu_s")
        )
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS])
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        with tempfile.TemporaryDirectory() as folder:
            given.out.write_text(json.dumps(CONTESTANTS[given.contestant](Path(folder), given.rounds)))
        return
    found = {name: _measured(name, given.rounds) for name in given.only}
    print("| sites x bytes each way |", " | ".join(f"{name}: wall (CPU)" for name in found), "|")
    print("| --- " * (len(found) + 1) + "|")
    for sites, size in CASES:
        cells = [f"{wall:.2f} ({cpu:.2f})" for wall, cpu in (own[sites, size] for own in found.values())]
        print(f"| {sites} x {size:,} |", " | ".join(cells), "|")
    print()
    for one, other, which in (
        ("inline", "call", 1),
        ("inline", "floor", 1),
        ("ray", "Flower", 0),
        ("ray", "raw Ray", 0),
    ):
        if one in found and other in found:
            ratios = [f"{found[one][case][which] / found[other][case][which]:.2f}" for case in CASES]
            print(f"{one} / {other} ({('wall', 'CPU')[which]}): {', '.join(ratios)}")


if __name__ == "__main__":
    main()
