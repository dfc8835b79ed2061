"""Federated averaging in NVIDIA FLARE's simulator.

python flare_job.py DATA SITES ROUNDS
"""

from __future__ import annotations

import sys
from pathlib import Path

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv

HERE = Path(__file__).parent
if __name__ == "__main__":
    folder, sites, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    recipe = FedAvgRecipe(
        name="peer",
        # FLARE builds the net itself, by its path; initial weights do not matter to the time.
        model={"class_path": "fedprivseg.nets.unet.UNet", "args": {"inputs": 1, "outputs": 3}},
        min_clients=sites,
        num_rounds=rounds,
        train_script=str(HERE / "flare_client.py"),
        train_args=f"--data {folder} --rounds {rounds} --task {HERE}",
    )
    # Two sites at once, as in the other two.
    run = recipe.execute(SimEnv(num_clients=sites, num_threads=2, workspace_root=str(folder / "flare")))
    print(run.get_status())
