"""How long an order takes from the server through SuperLink, terminator and SuperNode to a site's program and back.

    python tests/benchmarks/order_latency.py [SITES]

The program at the site sends back what came, so that nothing but the way is measured: orders of 2 kB one after another, then
one of 20 MB each way.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

HERE = Path(__file__).resolve()
ORDERS = 30

echo = ClientApp()


@echo.train("perform")
def _echo(message: Message, context: Context) -> Message:
    return Message(RecordDict({"released": message.content["order"]}), reply_to=message)


def cpu(pid: int) -> float:
    """The seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(sites: int) -> None:
    from fedprivseg.runtime.deployment import app_bundle, operator_side
    from fedprivseg.runtime.deployment.certificates import certified_key
    from fedprivseg.runtime.deployment.grid import DeploymentGrid
    from fedprivseg.runtime.deployment.processes import free_ports
    from fedprivseg.runtime.deployment.server_task import server_task
    from fedprivseg.runtime.deployment.service import service
    from fedprivseg.runtime.deployment.superlink import Link
    from fedprivseg.runtime.engines.deployment import LOOPBACK, join, start_node
    from fedprivseg.runtime.wire import MESSAGE_TYPE
    from fedprivseg.study.scenarios import load_scenario

    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    scenario = load_scenario(HERE.parents[2] / "simulations" / "quickstart.toml", ["engine=deployment"])
    scenario = scenario.model_copy(update={"sites": scenario.sites[:sites]})
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kit, hospitals = operator_side.init(place / "kit", scenario, (LOOPBACK,), *free_ports(2))
        for each in hospitals.values():
            join(kit, each)
        began = time.perf_counter()
        parties = {child.name: child.pid for child in stack.enter_context(service(kit, LOOPBACK))}
        print(f"SuperLink and terminator: {time.perf_counter() - began:.1f} s")
        for each in hospitals.values():
            node = start_node(each, place / "station.json", f"{HERE.stem}:echo")
            stack.callback(node.stop)
            parties[node.name] = node.pid
        parties["the server's program"] = os.getpid()
        content = kit.app.read_bytes()
        app = app_bundle.read(content)
        link = stack.enter_context(Link(kit))
        task = stack.enter_context(server_task(link, link.start_run(app, content)))
        grid = DeploymentGrid(task, {site: certified_key(path) for site, path in kit.certified.items()})
        while len(nodes := list(grid.get_node_ids())) < sites:
            time.sleep(0.05)
        print(f"{sites} nodes: {time.perf_counter() - began:.1f} s")

        def exchange(size: int, number: int) -> float:
            body = ConfigRecord({"scenario": app.scenario_digest, "body": os.urandom(size), "number": number})
            orders = [Message(RecordDict({"order": body}), node, MESSAGE_TYPE) for node in nodes]
            start = time.perf_counter()
            replies = list(grid.send_and_receive(orders, timeout=300))
            assert len(replies) == sites, replies
            assert all(len(reply.content["released"]["body"]) == size for reply in replies)
            return time.perf_counter() - start

        exchange(2_000, -1)
        before = {name: cpu(pid) for name, pid in parties.items()}
        times = sorted(exchange(2_000, number) for number in range(ORDERS))
        print(f"2 kB: median {times[len(times) // 2]:.3f} s, least {times[0]:.3f} s, most {times[-1]:.3f} s")
        for name, pid in parties.items():
            print(f"  {name}: {1000 * (cpu(pid) - before[name]) / ORDERS:.0f} ms of CPU an exchange")
        print(f"20 MB: {exchange(20_000_000, ORDERS):.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
