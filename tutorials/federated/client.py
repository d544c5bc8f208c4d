"""A site of a federation, run by NVFlare: weights come in, a round is trained on the site's own scans, weights go out.

NVFlare gives the arguments that ``job.py`` names. ``{site}`` in a setting stands for the name of the site, so that one
job finds the data of each: ``--dataset_dir "/data/{site}"``.
"""

import argparse
import json
from pathlib import Path

import nvflare.client as flare

from monai_cl.engine.federated import FederatedSite


def main() -> None:
    """Train as long as the server asks for rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="JSON beside this script with bundle, step, rounds, epochs, overlays and settings")
    file = Path(__file__).parent / parser.parse_args().file
    content = json.loads(file.read_text(encoding="utf-8"))
    flare.init()
    name = flare.get_site_name()
    settings = {k: v.replace("{site}", name) if isinstance(v, str) else v for k, v in content["settings"].items()}
    site = FederatedSite(
        content["bundle"], content["step"], rounds=content["rounds"], epochs=content["epochs"],
        overlays=content["overlays"], settings=settings,
    )
    try:
        while flare.is_running():
            message = flare.receive()
            if message is None:
                break
            flare.send(flare.FLModel(params=site.train_round(message.params)))
    finally:
        site.close()


if __name__ == "__main__":
    main()
