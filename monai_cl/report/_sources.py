"""Sources of a report beyond the results: a few prepared volumes, the views' settings, the pretrained network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from monai_cl import bundles as shelf, recipes, weights
from monai_cl.data.cache import open_item
from monai_cl.data.loading.faults import reason_of
from monai_cl.datalist import CACHED, few_labels, load_datalist, subject_of
from monai_cl.datalist.items import paths_of
from monai_cl.privacy.hidden_paths import without_hidden
from monai_cl.report._folders import Bundle, Found
from monai_cl.report._safety import inside, is_data
from monai_cl.transforms import VolumeContrastCrops
from monai_cl.transforms.stored import whole

logger = logging.getLogger(__name__)

INITIAL = "as initialised"


class NotAvailableError(Exception):
    """Error of an optional part that cannot be shown; its message states the reason on the page."""


@dataclass(frozen=True)
class PreparedVolume:
    """A volume as training sees it, on its own a (C, *S) tensor, with its case and its patient."""

    image: Tensor
    case: str
    subject: str


@dataclass(frozen=True)
class Sources:
    """Volumes of a study, as a run saw them.

    Attributes:
        found: The runs of the report.
        datalist: A datalist that takes the place of the recorded one.
        dataset_dir: A folder that takes the place of the recorded one.
    """

    found: Found
    datalist: Path | None = None
    dataset_dir: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the pretraining."""
        runs = [run.settings for run in self.found.of("pretrain") if run.settings]
        contrasting = [one for one in runs if one.get("method", "volume_contrast") == "volume_contrast"]
        return next(iter(contrasting or runs), {})

    def crops(self, num_crops: int | None = None, **options: Any) -> VolumeContrastCrops:
        """The views of the pretraining.

        Raises:
            NotAvailableError: If no run records such views.
        """
        known = self.settings
        if not {"grid", "crop_size", "num_crops"} <= known.keys():
            raise NotAvailableError("no run given here recorded a grid of base crops and the size of its crops")
        return VolumeContrastCrops(known["grid"], known["crop_size"], num_crops or known["num_crops"], **options)

    def volumes(self, count: int, seed: int = 0) -> Iterator[PreparedVolume]:
        """Up to ``count`` prepared volumes, each of another patient; unreadable ones are passed over.

        Raises:
            NotAvailableError: If the datalist, its files or the recipe are not to be had.
        """
        prepare, items = self._recipe(), self._items()
        patients = {subject_of(item): item for item in reversed(few_labels(items, len(items), seed=seed))}
        done = 0
        for subject, item in reversed(patients.items()):
            if done == count:
                return
            chosen = {key: item[key] for key in ("image", CACHED) if key in item}
            try:
                prepared = whole(open_item(chosen)) if CACHED in item else prepare(chosen)
                image = torch.as_tensor(prepared["image"])
            except Exception as error:  # whatever a reader may throw at a broken file; the run's record counts them
                logger.warning("passed over %s: %s", item["case"], without_hidden(reason_of(error), item))
                continue
            done += 1
            yield PreparedVolume(image, str(item["case"]), subject)

    def _recipe(self) -> Callable[[dict[str, Any]], Any]:
        contracts = [run.record.get("recipe") for run in self.found.of("pretrain", "train", "evaluate")]
        contracts += [_named(bundle.contract()) for bundle in self.found.bundles]
        for recipe in filter(None, contracts):
            if not self.found.trusted and recipe["name"] not in recipes.names():
                raise NotAvailableError(
                    "the recipe is none of the gallery but a file, which may run code; `--trust` builds it"
                )
            try:
                prepare: Callable[[dict[str, Any]], Any] = recipes.load(recipe["name"], **recipe.get("options", {}))
                return prepare
            except (ValueError, OSError) as error:
                raise NotAvailableError(f"the recipe cannot be built: {error}") from error
        raise NotAvailableError("no run given here recorded its recipe")

    def _items(self) -> list[dict[str, Any]]:
        datalist, folder = self.datalist, self.dataset_dir
        recorded = [run.record.get("data") or {} for run in self.found.of("pretrain", "train", "evaluate")]
        for data in recorded if datalist is None else []:
            if data.get("datalist"):
                datalist, folder = Path(data["datalist"]), folder or Path(data["dataset_dir"])
                return self._own(_listed(datalist, folder, self._sections), datalist)
        if datalist is None:
            raise NotAvailableError("no run given here recorded its datalist; give it with --datalist")
        return _listed(datalist, folder, self._sections)

    @property
    def _sections(self) -> str:
        return str(self.settings.get("sections") or "training")

    def _own(self, items: list[dict[str, Any]], datalist: Path) -> list[dict[str, Any]]:
        """A datalist that came with the runs must not show volumes of elsewhere on this machine."""
        folders = [*(bundle.folder for bundle in self.found.bundles), *(run.folder for run in self.found.runs)]
        came_with = [folder for folder in folders if inside(folder, datalist)]
        files = [Path(path) for item in items for path in paths_of(item["image"])]
        foreign = [path for path in files if not any(inside(folder, path) for folder in came_with)]
        if came_with and foreign and not self.found.trusted:
            raise NotAvailableError(
                "the datalist lies with the runs and its volumes do not; `--datalist` or `--trust` lets them be read"
            )
        return items


def _listed(datalist: Path, folder: Path | None, sections: str) -> list[dict[str, Any]]:
    try:
        return load_datalist(datalist, sections, dataset_dir=folder, labelled=False)
    except (ValueError, OSError) as error:
        # the error may name files, and with them patients: not for the page
        logger.warning("the volumes are not to be had: %s", error)
        raise NotAvailableError("the volumes of the datalist are unavailable, the log has the reason") from error


def _named(contract: dict[str, Any]) -> dict[str, Any] | None:
    if "recipe" not in contract:
        return None
    return {"name": contract["recipe"], "options": contract.get("recipe_options") or {}}


def networks(bundles: Sequence[Bundle], settings: dict[str, Any], *, trusted: bool = False) -> dict[str, nn.Module]:
    """The pretrained networks of the first bundle that has any, by file name, and last the one ``"as initialised"``.

    Raises:
        NotAvailableError: If none exists, or the bundle's config does not fit the weights.
    """
    for bundle in bundles:
        files = [file for file in bundle.weights if file.stem.startswith("pretrained")]
        if not files:
            continue
        try:
            initial = _network(bundle, {**settings, **bundle.contract(files[0].stem)}, trusted=trusted)
            filled = {file.stem: weights.load_network(deepcopy(initial), file).eval() for file in files}
        except NotAvailableError:
            raise
        except Exception as error:  # a config is code: it may fail in any way, and the report goes on without
            raise NotAvailableError(
                f"the network of configs/pretrain.yaml does not take the weights: {error}"
            ) from error
        return {**filled, INITIAL: initial.eval()}
    raise NotAvailableError("no bundle with models/pretrained.pt was given; give the bundle folder")


def _network(bundle: Bundle, known: dict[str, Any], *, trusted: bool) -> nn.Module:
    from monai.bundle import ConfigParser

    file = bundle.folder / "configs/pretrain.yaml"
    config, overrides = (file, {}) if trusted else _of_the_shelf(bundle.folder, file)
    parser = ConfigParser()
    parser.read_config(config)
    # settings by their own names alone: `network_def::_target_` would name what is run
    plain = {key: value for key, value in {**overrides, **known}.items() if key in parser.get() and is_data(value)}
    parser.update({key: value for key, value in plain.items() if isinstance(parser[key], _PLAIN)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = parser.get_parsed_content("network_def")
    return network


def _of_the_shelf(bundle: Path, file: Path) -> tuple[Path, dict[str, Any]]:
    """The config that comes with the package and has the very network of a bundle, and the bundle's plain settings."""
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if inside(bundle, file) else {}
    for config in (shelf.path(name) / "configs/pretrain.yaml" for name in shelf.names()):
        own = yaml.safe_load(config.read_text(encoding="utf-8"))
        if isinstance(content, dict) and own["network_def"] == content.get("network_def"):
            return config, {key: value for key, value in content.items() if is_data(own.get(key))}
    raise NotAvailableError(
        "configs/pretrain.yaml has another network than the bundles that come with monai_cl, and making it may run "
        "code; `--trust` makes it"
    )


_PLAIN = (int, float, str, list, type(None))
