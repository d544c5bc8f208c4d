"""Fixtures: tiny studies on disk."""

import gc
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet
from torch import nn

ROOT = Path(__file__).parents[1]
ONE_BUNDLE = "volume_contrast"  # the quickest


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make tests of ``one_bundle`` slow for the other bundles, whose runs go through the same code.

    Arguments of the marker name bundles beside the quickest that have code of their own.
    """
    for item in items:
        marker = item.get_closest_marker("one_bundle")
        if marker and item.callspec.params["name"] not in (ONE_BUNDLE, *marker.args):  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.slow)


def write_volume(path: Path, seed: int, *, label: bool = False, shape: tuple[int, ...] = (20, 22, 18)) -> None:
    """A blob in noise, or the mask of the blob: two classes by its halves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    center = np.array(shape) / 2 + rng.uniform(-2, 2, len(shape))
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    inside = np.linalg.norm(index - center, axis=-1) < 5
    data = inside * (1 + (index[..., 0] > center[0])) if label else inside * 100.0 + rng.normal(20, 5, shape)
    nib.save(nib.Nifti1Image(data.astype(np.uint8 if label else np.float32), np.diag([-1.0, 1.0, 1.2, 1.0])), path)


@pytest.fixture(scope="session", autouse=True)
def _key_of_pseudonyms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave the user's key alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_CL_KEY", str(tmp_path_factory.mktemp("key") / "pseudonym.key"))
        yield


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A command that a test runs in this process listens to signals; the next test finds them as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def _closed() -> Iterator[None]:
    """Pass over the sockets that pynetdicom leaves open where no association comes about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda _: None)
        yield
        gc.collect()


def write_maps(folder: Path, subject: str, seed: int, *, shape: tuple[int, ...] = (20, 22, 18)) -> None:
    """Maps of one subject with BIDS names: a blob of white matter in fluid, textured, in air."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(index - np.array(shape) / 2 - rng.uniform(-1, 1, len(shape)), axis=-1)
    inside, core = distance < 9, distance < 5
    texture = rng.uniform(0.9, 1.1, shape)
    maps = {
        "PDmap": np.where(core, 70, 100) * inside * texture,
        "R1map": np.where(core, 1.2, 0.25) * inside * texture,
        "R2starmap": np.where(core, 20.0, 1.0) * inside * texture,
    }
    for suffix, values in maps.items():
        image = nib.Nifti1Image(values.astype(np.float32), np.diag([-1.0, 1.0, 1.2, 1.0]))
        nib.save(image, folder / f"{subject}_{suffix}.nii.gz")


def write_study(root: Path) -> Path:
    """A folder with 4 labelled training, 2 validation and 2 unlabelled volumes, and their ``datalist.json``."""
    sections: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "unlabelled": []}
    for number, section in enumerate(["training"] * 4 + ["validation"] * 2 + ["unlabelled"] * 2):
        name = f"case_{number}.nii.gz"
        cohort = "patient" if number % 2 else "healthy"
        item = {"image": f"images/{name}", "subject": f"s{number}", "cohort": cohort}
        write_volume(root / item["image"], number)
        if section != "unlabelled":
            item["label"] = f"labels/{name}"
            write_volume(root / item["label"], number, label=True)
        sections[section].append(item)
    content = {"name": "tiny", "labels": {"0": "background", "1": "left", "2": "right"}, **sections}
    (root / "datalist.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of :func:`write_study`."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def study_with_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with quantitative maps of 20 other subjects in a folder of it."""
    folder = write_study(tmp_path_factory.mktemp("with_maps"))
    for number in range(20):
        write_maps(folder / "maps", f"sub-{number:02d}", number)
    return folder


FIVE_CHANNEL_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "SegResNet": lambda: SegResNet(out_channels=5),
    "BasicUNet": lambda: BasicUNet(out_channels=5),
    "UNet": lambda: UNet(3, 1, 5, channels=(4, 8), strides=(2,)),
    "DynUNet": lambda: DynUNet(3, 1, 5, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2]),
    "SwinUNETR": lambda: SwinUNETR(in_channels=1, out_channels=5, feature_size=12),
}


@pytest.fixture(params=FIVE_CHANNEL_NETWORKS)
def five_channel_network(request: pytest.FixtureRequest) -> nn.Module:
    """A stock 3-D segmentation network with one channel in and five out, of each family in turn."""
    return FIVE_CHANNEL_NETWORKS[request.param]()
