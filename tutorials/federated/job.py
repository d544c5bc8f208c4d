"""A job of NVFlare for any bundle: pretraining or fine-tuning by federated averaging.

Simulated, two sites with their scans below data/site-1 and data/site-2:

    python tutorials/federated/job.py volume_contrast train --sites 2 --rounds 2 --overlays small.yaml \
        --settings '{"dataset_dir": "data/{site}", "datalist": "data/{site}/datalist.json",
                     "bundle_root": "runs/{site}", "recipe": "small_mr"}'

With ``--job FOLDER`` the job is written there and not simulated: submit it to a federation, or simulate it by
``nvflare simulator``. A site runs the configs of the ``monai_cl`` that is installed there.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv

# settings of one site alone, which the server, without data, cannot have
_OF_A_SITE = ("bundle_root", "dataset_dir", "datalist", "output_dir", "device", "num_workers")


def main() -> None:
    """Simulate or write the job that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="name of a bundle, installed at every site")
    parser.add_argument("step", choices=("pretrain", "train"))
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1, help="epochs a round")
    parser.add_argument("--overlays", nargs="*", default=[], help="such as small.yaml, the same at every site")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON; {site} stands for a site's name")
    parser.add_argument("--start", help="file of weights to begin with, at the server")
    parser.add_argument("--job", type=Path, help="write the job into this folder instead of simulating it")
    parser.add_argument("--workspace", default=None, help="folder of the simulation")
    args = parser.parse_args()

    common = {key: value for key, value in args.settings.items() if key not in _OF_A_SITE}
    model = {"bundle": args.bundle, "step": args.step, "overlays": args.overlays, "settings": common}
    content = {key: getattr(args, key) for key in ("bundle", "step", "rounds", "epochs", "overlays", "settings")}
    with tempfile.TemporaryDirectory() as parts:
        shutil.copy(Path(__file__).with_name("client.py"), parts)
        (Path(parts) / "site.json").write_text(json.dumps(content), encoding="utf-8")
        folder, jobs, before = Path(parts), args.job and args.job.resolve(), Path.cwd()
        if jobs:  # NVFlare writes the path of a script into the job as it gets it, and other machines have none of ours
            os.chdir(folder)
            folder = Path()
        recipe = FedAvgRecipe(
            name=f"{args.bundle}_{args.step}",
            model={"class_path": "monai_cl.engine.federated.SharedModel", "args": {**model, "start": args.start}},
            min_clients=args.sites,
            num_rounds=args.rounds,
            train_script=str(folder / "client.py"),
            train_args=str(folder / "site.json"),
        )
        if jobs:
            recipe.add_client_file("site.json")
            recipe.export(str(jobs))
            os.chdir(before)
        else:
            simulate(recipe, args.sites, Path(args.workspace or tempfile.mkdtemp(prefix="federated")))


def simulate(recipe: FedAvgRecipe, sites: int, workspace: Path) -> None:
    """Run a job with all its sites on this machine."""
    recipe.execute(SimEnv(num_clients=sites, workspace_root=str(workspace)))
    if not any(workspace.rglob("FL_global_model.pt")):  # it ends without an error, too, where its sites did not
        sys.exit(f"the simulation ended without a model; log.txt in the folders of {workspace} says why")


if __name__ == "__main__":
    main()
