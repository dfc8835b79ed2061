"""One site of federated averaging in NVIDIA FLARE, in the shape of its hello-pt: receive, evaluate, train, send."""

from __future__ import annotations

import sys
from pathlib import Path

import nvflare.client as flare

sys.path.insert(0, str(Path(sys.argv[sys.argv.index("--task") + 1])))
from task import STEPS, evaluate, new_net, site_data, train

FOLDER = Path(sys.argv[sys.argv.index("--data") + 1])
ROUNDS = int(sys.argv[sys.argv.index("--rounds") + 1])


def main() -> None:
    flare.init()
    place = int(flare.get_site_name().removeprefix("site-")) - 1
    data = site_data(FOLDER, place)
    while flare.is_running():
        received = flare.receive()
        net = new_net()
        net.load_state_dict(received.params)
        dice = evaluate(net, data)
        train(net, data, place, received.current_round + 1, ROUNDS)
        state = {name: value.cpu() for name, value in net.state_dict().items()}
        meta = {"NUM_STEPS_CURRENT_ROUND": STEPS}
        flare.send(flare.FLModel(params=state, metrics={"accuracy": dice}, meta=meta))


if __name__ == "__main__":
    main()
