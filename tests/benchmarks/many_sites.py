"""What a run of many sites costs: time and memory of the server with 10, 100 and 1,000 hospitals, none of which computes.

    python tests/benchmarks/many_sites.py [--sites 10 100 1000] [--bytes 2000 2000000] [--engine inline] [--exchanges 3]

The sites' own programs, gates and ledgers run as they are; the method only sends weights back (`stub/`). Each number of sites
is a process of its own, and a run in which both sizes go there and back several times. Prints Markdown: ms of CPU a site to
write its folder, to ask who it is, and a site-action of each size (CPU of this process, and wall clock), memory (RSS) before
the first exchange and the most after one of each size, MB, and kB of a site's folder. Time is linear where ms a site stay the
same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "stub"))


def measured(folder: Path, sites: int, sizes: list[int], exchanges: int, engine: str) -> dict[str, object]:
    """One run of so many sites."""
    from stub_method import TIMES, installed, prepared, rss_mb

    installed(folder / "plug-in")
    plan = [(sites, size) for size in sizes for _ in range(exchanges)]
    begin = time.process_time()
    scenario = prepared(folder / "run", sites, plan, engine, cpus=2, sites_at_once=2, memory_gib=8)
    provided = time.process_time() - begin
    from fedprivseg.runtime.engines import begun
    from fedprivseg.runtime.server.server_app import app as loaded  # noqa: F401
    from fedprivseg.study.simulated_client import app

    before, begin, wall = rss_mb(), time.process_time(), time.perf_counter()
    with begun(scenario, folder / "run") as carry_out:
        carry_out(folder / "run", scenario, app)
    cpu, wall = time.process_time() - begin, time.perf_counter() - wall
    times = json.loads((folder / "run/server" / TIMES).read_text())
    disk = sum(path.stat().st_size for path in (folder / "run/sites").rglob("*") if path.is_file())
    return {"provided": provided, "before": before, "times": times, "cpu": cpu, "wall": wall, "disk": disk}


def row(found: dict, sites: int, sizes: list[int]) -> str:
    """A line of the table."""
    times = found["times"]
    asked = (found["cpu"] - sum(each["cpu_s"] for each in times)) / sites * 1e3
    cells = [f"{sites:,}", f"{found['provided'] / sites * 1e3:.1f}", f"{asked:.1f}"]
    for size in sizes:
        own = [each for each in times if each["bytes"] == size]
        cpu, wall = (statistics.median(each[which] for each in own) / sites * 1e3 for which in ("cpu_s", "wall_s"))
        cells.append(f"{cpu:.2f} ({wall:.2f})")
    cells.append(f"{found['before']:.0f}")
    cells += [f"{max(each['rss_mb'] for each in times if each['bytes'] == size):.0f}" for size in sizes]
    return " | ".join([*cells, f"{found['disk'] / sites / 1e3:.0f}", f"{found['wall']:.0f}"])


def main() -> None:
    """Prints a line a number of sites."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--bytes", type=int, nargs="+", default=[2_000, 2_000_000])
    parser.add_argument("--exchanges", type=int, default=3)
    parser.add_argument("--engine", choices=("inline", "ray"), default="inline")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measured(Path(folder), given.one, given.bytes, given.exchanges, given.engine)))
        return
    head = ["sites", "ms CPU to provide one", "ms CPU to meet one"]
    head += [f"{size:,} bytes: ms CPU (wall) a site-action" for size in given.bytes]
    head += ["RSS before, MB", *(f"RSS after {size:,} bytes" for size in given.bytes), "kB of a folder", "s in all"]
    print("|", " | ".join(head), "|\n" + "| --- " * len(head) + "|")
    for sites in given.sites:
        command = [sys.executable, __file__, "--one", str(sites), "--engine", given.engine]
        command += ["--exchanges", str(given.exchanges), "--bytes", *map(str, given.bytes)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print("|", row(json.loads(done.stdout.splitlines()[-1]), sites, given.bytes), "|", flush=True)


if __name__ == "__main__":
    main()
