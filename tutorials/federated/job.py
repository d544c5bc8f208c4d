"""A job of NVFlare for any bundle: pretraining or fine-tuning by federated averaging.

Simulated, two sites with their scans below /data/site-1 and /data/site-2:

    python tutorials/federated/job.py volume_contrast train --sites 2 --rounds 2 --overlays small.yaml \
        --settings '{"dataset_dir": "/data/{site}", "datalist": "/data/{site}/datalist.json",
                     "bundle_root": "/runs/{site}", "recipe": "small_mr"}'

With ``--job FOLDER`` the job is written there and not simulated: submit it to a federation, or simulate it by
``nvflare simulator``. A site runs the configs of the ``monai_cl`` that is installed there.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

# Seconds for a site to start and to find the server, and for an answer. NVFlare's own limits, 60 and 5, are hit where a
# machine is slow or busy, and then the job ends without a model.
PATIENCE, ANSWER = 1800.0, 300.0
LIMITS = {
    "max_runner_sync_timeout": PATIENCE,
    "cell_wait_timeout": PATIENCE,
    "get_task_timeout": ANSWER,
    "submit_task_result_timeout": ANSWER,
}
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
        jobs = args.job.resolve() if args.job else Path(parts) / "jobs"
        with chdir(parts):  # NVFlare writes the path of a script as it gets it, and other machines have none of ours
            recipe = FedAvgRecipe(
                name=f"{args.bundle}_{args.step}",
                model={"class_path": "monai_cl.engine.federated.SharedModel", "args": {**model, "start": args.start}},
                min_clients=args.sites,
                num_rounds=args.rounds,
                train_script="client.py",
                train_args="site.json",
            )
            recipe.add_client_file("site.json")
            recipe.add_client_config(LIMITS)
            recipe.add_server_config({"cell_wait_timeout": PATIENCE})
            recipe.export(str(jobs))
        if not args.job:
            workspace = Path(args.workspace or tempfile.mkdtemp(prefix="federated")).resolve()
            simulate(jobs / f"{args.bundle}_{args.step}", args.sites, workspace)


@contextmanager
def chdir(folder: str) -> Iterator[None]:
    """Work in a folder, and come back."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class PatientSimulator(SimulatorRunner):
    """The simulator of NVFlare with its limit for the start of a site set: it has a name, but no option."""

    def _generate_args(self, *args: Any, **kwargs: Any) -> Namespace:
        arguments: Namespace = super()._generate_args(*args, **kwargs)
        arguments.set = [f"simulator_worker_timeout={PATIENCE}"]
        return arguments


def simulate(job: Path, sites: int, workspace: Path) -> None:
    """Run a written job with all its sites on this machine."""
    status = PatientSimulator(str(job), str(workspace), n_clients=sites, threads=sites, log_config="concise").run()
    if status or not any(workspace.rglob("FL_global_model.pt")):  # it ends without an error, too, where sites did not
        sys.exit(f"the simulation ended without a model; log.txt in the folders of {workspace} says why")


if __name__ == "__main__":
    main()
