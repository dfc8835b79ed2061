"""Federated averaging in plain Flower, in the shape of its own quickstart: ClientApp, ServerApp, FedAvg, run_simulation.

python plain_flower.py DATA SITES ROUNDS
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

sys.path.insert(0, str(Path(__file__).parent))
from task import evaluate, new_net, site_data, train

FOLDER, SITES, ROUNDS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

client = ClientApp()


def _start(message: Message, context: Context):
    place = int(context.node_config["partition-id"])
    net = new_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return net, site_data(FOLDER, place), place


@client.train()
def train_site(message: Message, context: Context) -> Message:
    net, data, place = _start(message, context)
    loss = train(net, data, place, int(message.content["config"]["server-round"]), ROUNDS)
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(data["images"])})
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate_site(message: Message, context: Context) -> Message:
    net, data, _ = _start(message, context)
    metrics = MetricRecord({"dice": evaluate(net, data), "num-examples": len(data["test_images"])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(min_train_nodes=SITES, min_evaluate_nodes=SITES, min_available_nodes=SITES)
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(new_net().state_dict()), num_rounds=ROUNDS)
    torch.save(result.arrays.to_torch_state_dict(), FOLDER / "flower.pt")


if __name__ == "__main__":
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=SITES,
        backend_config={"init_args": {"num_cpus": 2}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
