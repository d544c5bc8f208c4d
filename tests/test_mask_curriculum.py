"""Curriculum of masks: scores and counts against loops, what is remembered, attention, runs that go on."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forks import in_two_processes
from monai.networks.nets import UNETR, UNet
from test_bundle_runs import run, user_sees
from torch import Tensor, nn

from monai_cl import bundles
from monai_cl.methods import MaskCurriculum, MaskedReconstruction, attention_of
from monai_cl.transforms import CurriculumMask

B, N = 3, 20


def scores(seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return 5 * torch.rand(B, N, generator=g), torch.rand(B, N, generator=g) - 3


def reference(attention: Tensor, error: Tensor, progress: float) -> list[list[float]]:
    a = 0.9 - 0.8 * (1 + math.cos(math.pi * progress)) / 2
    found = []
    for one, other in zip(attention.tolist(), error.tolist(), strict=True):
        rows = [[(v - min(row)) / (max(row) - min(row)) for v in row] for row in (one, other)]
        found.append([a * p + (1 - a) * q for p, q in zip(*rows, strict=True)])
    return found


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_scores_are_those_of_loops_and_their_highest_are_hidden(progress: float) -> None:
    attention, error = scores()
    mask = CurriculumMask()
    expected = reference(attention, error, progress)
    torch.testing.assert_close(mask.score(progress, attention=attention, error=error), torch.tensor(expected))
    hidden = mask(progress, attention=attention, error=error)
    led = int(N * (0.1 + 0.8 * progress))
    for row, of_image in zip(hidden, expected, strict=True):
        order = sorted(range(N), key=lambda i: -of_image[i])
        assert all(row[i] for i in order[:led])
        assert int(row.sum()) == max(math.ceil(0.6 * N), led)


def test_the_rest_is_topped_up_at_random() -> None:
    attention, error = scores()
    mask = CurriculumMask(guided=(0.25, 0.25))
    drawn = [
        mask(0.0, attention=attention, error=error, generator=torch.Generator().manual_seed(s)) for s in range(200)
    ]
    share = torch.stack(drawn).float().mean(0)
    led = share == 1
    assert led.sum(1).tolist() == [5, 5, 5]
    torch.testing.assert_close(share[~led], torch.full((B * 15,), 7 / 15), atol=0.15, rtol=0)
    again = mask(0.0, attention=attention, error=error, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again, drawn[3])


def test_one_score_alone_counts_whole_and_its_scale_means_nothing() -> None:
    attention, error = scores()
    mask = CurriculumMask()
    torch.testing.assert_close(mask.score(0.4, error=error), mask.score(0.9, error=7 * error + 3))
    torch.testing.assert_close(mask.score(0.4, attention=attention), mask.score(0.4, error=attention))
    assert not mask.score(0.5, error=torch.ones(2, 4)).any()


def test_tokens_of_a_transformer_are_hidden_alike() -> None:
    tokens = torch.rand(2, 64, generator=torch.Generator().manual_seed(0))
    hidden = CurriculumMask(0.5)(1.0, attention=tokens)
    assert hidden.sum(1).tolist() == [57, 57]
    assert tokens[hidden].min() > tokens[~hidden].max() - 0.3
    assert all(row[~h].max() <= row[h].min() for row, h in zip(tokens, hidden, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio must be between 0 and 1, got 1.0"),
        ({"guided": (0.1,)}, "guided must be two numbers between 0 and 1"),
        ({"attention_weight": (0.1, 1.2)}, "attention_weight must be two numbers between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CurriculumMask(**options)


def test_scores_that_are_not_there_or_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be given, \(B, N\) of one shape, got \[\]"):
        CurriculumMask()(0.0)
    with pytest.raises(ValueError, match=r"got \[\(2, 4\), \(2, 5\)\]"):
        CurriculumMask()(0.0, attention=torch.rand(2, 4), error=torch.rand(2, 5))


# --- what is remembered


def errors(seed: int = 0, b: int = 2) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(b, 2, 6, 5, generator=g), torch.rand(b, 1, 6, 5, generator=g) < 0.5


def remembered(error: Tensor, hidden: Tensor, before: Tensor, memory: float) -> Tensor:
    after = before.clone()
    for i in range(3):
        for j in range(3):
            seen = [
                float(error[b, :, x, y].mean())
                for b in range(len(error)) for x in range(2 * i, 2 * i + 2) for y in range(2 * j, min(2 * j + 2, 5))
                if hidden[b, 0, x, y]
            ]  # fmt: skip
            if seen:
                mean = sum(seen) / len(seen)
                after[i, j] = mean if before[i, j] == 0 else memory * before[i, j] + (1 - memory) * mean
    return after


def test_the_error_of_a_block_is_a_running_mean_of_its_hidden_voxels() -> None:
    curriculum = MaskCurriculum((6, 5), 2, memory=0.8, spatial_dims=2)
    expected = torch.zeros(3, 3)
    for seed in range(3):
        error, hidden = errors(seed)
        hidden[:, :, :2, :2] &= seed == 0  # a block that is hidden once alone keeps its error
        curriculum.remember(error, hidden)
        expected = remembered(error, hidden, expected, 0.8)
        torch.testing.assert_close(curriculum.errors, expected)


def test_blocks_that_went_wrong_are_hidden() -> None:
    curriculum = MaskCurriculum(8, 2, spatial_dims=2, mask_ratio=0.25, guided=(0.25, 0.25))
    curriculum.errors[1, 2] = curriculum.errors[3, 3] = curriculum.errors[0, 0] = curriculum.errors[2, 0] = 1.0
    hidden = curriculum(nn.Identity(), torch.zeros(3, 1, 8, 8))
    for image in hidden[:, 0]:
        assert {(x // 2, y // 2) for x, y in image.nonzero().tolist()} == {(1, 2), (3, 3), (0, 0), (2, 0)}
        assert int(image.sum()) == 16


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    curriculum = MaskCurriculum((6, 5), 2, spatial_dims=2)
    for seed in range(2):
        curriculum.remember(*(each[rank : rank + 1] for each in errors(seed)))
    dist.barrier()
    dist.destroy_process_group()
    torch.save(curriculum.state_dict(), Path(folder) / f"{rank}.pt")


def test_two_processes_remember_what_one_does(tmp_path: Path) -> None:
    in_two_processes(run_process, str(tmp_path))
    expected = MaskCurriculum((6, 5), 2, spatial_dims=2)
    for seed in range(2):
        expected.remember(*errors(seed))
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected.state_dict())


# --- attention


def test_attention_of_a_convolutional_encoder_is_the_energy_of_its_deepest_map() -> None:
    network = UNet(spatial_dims=2, in_channels=1, out_channels=1, channels=(4, 8), strides=(2,)).train()
    found = attention_of(network, torch.rand(2, 1, 8, 8))
    assert found.shape == (2, 1, 4, 4)
    assert not found.requires_grad
    assert network.training
    assert (found >= 0).all()


def test_attention_of_a_transformer_is_what_its_tokens_receive() -> None:
    network = UNETR(1, 2, (32, 32, 32), feature_size=4, hidden_size=24, mlp_dim=24, num_heads=3)
    found = attention_of(network, torch.rand(1, 1, 32, 32, 32))
    assert found.shape == (1, 1, 2, 2, 2)
    assert float(found.sum()) == pytest.approx(1, abs=1e-4)  # of all tokens, by each query
    assert not network.vit.blocks[-1].attn.save_attn


# --- the method


def learning(curriculum: str, **options: Any) -> MaskedReconstruction:
    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,))
    return MaskedReconstruction(network, block_size=2, curriculum=curriculum, image_size=8, **options)


@pytest.mark.parametrize("curriculum", ["error", "attention", "both"])
def test_a_method_hides_more_as_training_goes_on_and_keeps_its_memory(curriculum: str) -> None:
    method = learning(curriculum)
    shown: list[float] = []
    method.network.register_forward_pre_hook(
        lambda module, inputs: shown.append(float((inputs[0] == 0).float().mean()))
    )
    batch = {"image": torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1}
    for progress in (0.0, 0.9):
        method(batch)["loss"].backward()
        method.after_step(progress)
    method(batch)
    at_first, later = shown[0], shown[-1]
    assert at_first == pytest.approx(math.ceil(0.6 * 64) / 64)
    assert later == pytest.approx(int(64 * 0.82) / 64)
    memory: Any = method.terms["reconstruction"].curriculum
    assert bool((memory.errors > 0).any())
    again = learning(curriculum)
    again.load_state_dict(method.state_dict())
    copied: Any = again.terms["reconstruction"].curriculum
    assert torch.equal(copied.errors, memory.errors)
    assert float(copied.progress) == 0.9
    before = memory.errors.clone()
    method.eval()(batch)
    assert torch.equal(memory.errors, before)


def test_a_method_without_a_curriculum_is_as_before() -> None:
    assert set(learning("none").state_dict()) == {k for k in learning("error").state_dict() if "curriculum" not in k}


def test_what_a_curriculum_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"curriculum must be one of .* got 'loss'"):
        learning("loss")
    with pytest.raises(ValueError, match="a curriculum needs image_size"):
        MaskedReconstruction(nn.Conv3d(1, 1, 3), curriculum="error")
    with pytest.raises(ValueError, match=r"options of a curriculum need one, got \['guided'\]"):
        learning("none", guided=(0.1, 0.6))
    with pytest.raises(ValueError, match="memory must be at least 0 and below 1"):
        learning("error", memory=1.0)
    with pytest.raises(ValueError, match=r"crops must have the size \(8, 8, 8\) .* got \(4, 8, 8\)"):
        learning("error")({"image": torch.rand(1, 1, 4, 8, 8)})


def test_a_bundle_keeps_the_memory_and_goes_on_with_no_other_curriculum(study: Path, tmp_path: Path) -> None:
    root, overlays = bundles.copy("volume_contrast", tmp_path / "bundle"), ("masked_reconstruction.yaml",)
    given = {"patch_size": [16, 16, 16], "curriculum": "both", "epoch_length": 1}
    run(root, "pretrain", study, overlays, max_epochs=2, **given)
    content = torch.load(root / "runs/pretrain_masked/checkpoint.pt", weights_only=True)
    assert bool((content["method"]["terms.reconstruction.curriculum.errors"] > 0).any())
    said = user_sees(root, "pretrain", study, overlays, max_epochs=3, **{**given, "curriculum": "error"})
    assert re.search("curriculum: 'both' -> 'error'", said)
