"""The verbs that hand networks over, on the configuration of a bundle."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.networks.nets import SegResNet
from typer.testing import CliRunner

from monai_cl import bundles, cli
from monai_cl.weights import read_contract, save_network

SETTINGS = ["--init_filters", "8", "--roi_size", "[16,16,16]", "--recipe", "small_mr", "--out_channels", "2"]


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    network = SegResNet(init_filters=8, blocks_down=[1, 2, 2, 4], blocks_up=[1, 1, 1], out_channels=2)
    save_network(network, tmp_path / "pretrained.pt", contract={"recipe": "small_mr", "recipe_options": {}})
    return tmp_path / "pretrained.pt"


def config() -> str:
    return str(bundles.path("volume_contrast") / "configs" / "inference.yaml")


def test_export_writes_what_the_ending_says(pretrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    done = CliRunner().invoke(
        cli.app,
        ["export", config(), *SETTINGS, "--weights", str(pretrained), "--out", str(out)],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    assert read_contract(out)["recipe"] == "small_mr"
    with pytest.raises(ValueError, match=r"out must end in one of \('\.safetensors', '\.pth', '\.onnx', '\.pt2'\)"):
        CliRunner().invoke(
            cli.app, ["export", config(), "--weights", str(pretrained), "--out", "w.pt"], catch_exceptions=False
        )
    with pytest.raises(ValueError, match="nnU-Net fine-tunes its own networks, got SegResNet"):
        CliRunner().invoke(
            cli.app,
            ["export", config(), *SETTINGS, "--weights", str(pretrained), "--out", str(tmp_path / "w.pth")],
            catch_exceptions=False,
        )


@pytest.mark.parametrize("word", ["none", "auto", "shipped"])
def test_export_takes_a_file_and_no_word_for_a_start(word: str, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match=f"no file of weights at {word}"):
        CliRunner().invoke(
            cli.app, ["export", config(), *SETTINGS, "--weights", word, "--out", str(out)], catch_exceptions=False
        )
    assert not out.exists()


def test_export_names_what_is_not_from_the_file(
    pretrained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for classes, drawn in (("2", 0), ("5", 2)):
        caplog.clear()
        settings = [*SETTINGS[:-1], classes, "--weights", str(pretrained), "--out", str(tmp_path / "w.safetensors")]
        done = CliRunner().invoke(cli.app, ["export", config(), *settings], catch_exceptions=False)
        assert done.exit_code == 0
        said = [text for text in caplog.messages if "written as they were drawn at random" in text]
        assert len(said) == bool(drawn)
        assert not drawn or (said[0].startswith("2 of ") and "conv_final.2.conv.weight" in said[0])


def test_embed_writes_vectors_and_a_page(pretrained: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    rng = np.random.default_rng(0)
    items = []
    for number in range(2):
        for kind, values in (("image", rng.random((16, 16, 12))), ("label", rng.integers(0, 2, (16, 16, 12)))):
            nibabel.save(
                nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), scans / f"{kind}_{number:03d}.nii.gz"
            )
        items.append(
            {"image": f"image_{number:03d}.nii.gz", "label": f"label_{number:03d}.nii.gz", "subject": str(number)}
        )
    (scans / "list.json").write_text(json.dumps({"training": items}))
    where = ["--dataset_dir", str(scans), "--datalist", str(scans / "list.json"), "--sections", "training"]
    out = tmp_path / "out"
    torch.manual_seed(0)
    done = CliRunner().invoke(
        cli.app,
        ["embed", config(), *SETTINGS, *where, "--weights", str(pretrained), "--out", str(out), "--regions"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    with np.load(out / "embeddings.npz") as stored:
        assert stored["vectors"].shape == (4, 8 + 16 + 32 + 64)
        assert stored["regions"].tolist() == [0, 1, 0, 1]
    assert (out / "embeddings.csv").exists()
    assert "cosine" in (out / "nearest.html").read_text()
