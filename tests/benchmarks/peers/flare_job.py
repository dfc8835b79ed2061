"""Federated averaging in NVIDIA FLARE's simulator.

python flare_job.py DATA SITES ROUNDS
"""

from __future__ import annotations

import sys
from pathlib import Path

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from task import new_net  # noqa: E402

if __name__ == "__main__":
    folder, sites, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    recipe = FedAvgRecipe(
        name="peer",
        model=new_net(),
        min_clients=sites,
        num_rounds=rounds,
        train_script=str(HERE / "flare_client.py"),
        train_args=f"--data {folder} --rounds {rounds} --task {HERE}",
    )
    # Two sites at once, as in the other two.
    run = recipe.execute(SimEnv(num_clients=sites, num_threads=2, workspace_root=str(folder / "flare")))
    print(run.get_status())
