"""The autoencoder of healthy and patients: its terms against loops, its codes, its pictures."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from stored_methods import SIZE, network, pairs, rand
from torch import Tensor

from monai_cl.engine.separation import PARTS, draw_separation, separate
from monai_cl.engine.spaces import embed_spaces, restored
from monai_cl.losses import SepVAELoss
from monai_cl.methods import CasesAndControls, Method, SeparateVAETerm
from monai_cl.methods.code_decoder import CodeDecoder
from monai_cl.methods.total_correlation import TotalCorrelation

LABELS = torch.tensor([0, 1, 1, 0, 1])


def rows(n: int, d: int, *, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def given() -> tuple[Tensor, ...]:
    codes = [rows(5, d, seed=seed) for seed, d in enumerate((3, 3, 2, 2))]
    return (
        rows(5, 8, seed=5).reshape(5, 1, 2, 4),
        rows(5, 8, seed=6).reshape(5, 1, 2, 4),
        *codes,
        rows(5, 1, seed=7)[:, 0],
    )


def loop(x: tuple[Tensor, ...], labels: list[int]) -> dict[str, Tensor]:
    restored, image, mc, vc, ms, vs, logit = x
    n, zero = range(5), torch.zeros((), dtype=torch.float64)

    def mean(terms: list[Tensor]) -> Tensor:
        return sum(terms, zero) / max(len(terms), 1)

    def divergence(m: Tensor, v: Tensor) -> Tensor:
        """Of two normal distributions, from the definition with their entropies."""
        variance = v.exp()
        cross = (m**2 + variance) / 2 + np.log(2 * np.pi) / 2
        entropy = (1 + np.log(2 * np.pi) + v) / 2
        return (cross - entropy).sum()

    told = [-(torch.sigmoid(logit[i]) if labels[i] else 1 - torch.sigmoid(logit[i])).log() for i in n]
    return {
        "reconstruction": mean([((restored[i] - image[i]) ** 2).mean() for i in n]),
        "common_divergence": mean([divergence(mc[i], vc[i]) for i in n]),
        "salient_divergence": mean([divergence(ms[i], vs[i]) for i in n if labels[i]]),
        "healthy_salient": mean([(ms[i] ** 2).sum() / 2 for i in n if not labels[i]]),
        "classifier": mean(told),
    }


@pytest.mark.parametrize("labels", [LABELS, torch.zeros(5), torch.ones(5)])
def test_each_term_equals_a_loop(labels: Tensor) -> None:
    x = given()
    found, expected = (
        SepVAELoss(0.3, 0.5, healthy_weight=0.7, classifier_weight=0.9)(*x, labels),
        loop(x, labels.tolist()),
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    total = sum(w * v for w, v in zip((1.0, 0.3, 0.5, 0.7, 0.9), expected.values(), strict=True))
    torch.testing.assert_close(found["loss"], total)


def test_gradients_of_the_terms_are_those_of_differences() -> None:
    assert torch.autograd.gradcheck(lambda *x: SepVAELoss(0.3, 0.5)(*x, LABELS)["loss"], given())


def test_inputs_that_do_not_fit_are_refused() -> None:
    x = given()
    with pytest.raises(ValueError, match=r"salient_log_variance must have shape \(5, 2\), got \(5, 3\)"):
        SepVAELoss()(*x[:5], x[3], x[6], LABELS)
    with pytest.raises(ValueError, match=r"labels must be 0 \(healthy\) or 1 \(patient\), got \[2\]"):
        SepVAELoss()(*x, LABELS * 2)
    with pytest.raises(ValueError, match=r"the weight of healthy_salient must be at least 0, got -1\.0"):
        SepVAELoss(healthy_weight=-1.0)


def test_the_correlation_moves_codes_alone_and_the_discriminator_learns_from_its_loss_alone() -> None:
    torch.manual_seed(0)
    judge = TotalCorrelation(5, hidden=6)
    common, salient = rows(6, 3, seed=1).float(), rows(6, 2, seed=2).float()
    patients = torch.tensor([1, 1, 0, 1, 1, 0]).bool()
    correlation, loss = judge(common, salient, patients)
    own = list(judge.parameters())
    codes = torch.autograd.grad(correlation, [common, salient], retain_graph=True)
    assert all((g[patients] != 0).any() and (g[~patients] == 0).all() for g in codes)
    assert torch.autograd.grad(correlation, own, retain_graph=True, allow_unused=True) == (None,) * len(own)
    assert torch.autograd.grad(loss, [common, salient], retain_graph=True, allow_unused=True) == (None, None)
    assert all(g is not None for g in torch.autograd.grad(loss, own))


def test_a_trained_discriminator_tells_dependent_codes_from_independent_ones() -> None:
    def learned(share: float) -> float:
        torch.manual_seed(0)
        judge = TotalCorrelation(2, hidden=16)
        optimizer = torch.optim.Adam(judge.parameters(), 1e-2)
        for _ in range(150):
            common = torch.randn(128, 1)
            salient = share * common + (1 - share**2) ** 0.5 * torch.randn(128, 1)
            correlation, loss = judge(common, salient, torch.ones(128).bool())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(correlation.detach())

    # closed form for normal codes: -log(1 - r^2) / 2
    assert learned(0.0) == pytest.approx(0.0, abs=0.15)
    assert learned(0.9) == pytest.approx(0.83, abs=0.35)


def test_fewer_than_two_patients_have_nothing_to_be_told_apart_by() -> None:
    judge = TotalCorrelation(5, hidden=6)
    correlation, loss = judge(
        rows(3, 3, seed=1).float(), rows(3, 2, seed=2).float(), torch.tensor([True, False, False])
    )
    assert (correlation.item(), loss.item()) == (0.0, 0.0)
    loss.backward()
    assert all(p.grad is not None for p in judge.parameters())


@pytest.mark.parametrize("size", [(8, 8, 8), (7, 9, 5), (10, 6)])
def test_a_decoder_gives_images_of_any_size(size: tuple[int, ...]) -> None:
    assert CodeDecoder(5, size, 2, width=2, doublings=2)(torch.rand(3, 5)).shape == (3, 2, *size)


# --- the method and its pictures


def method(**options: Any) -> Method:
    torch.manual_seed(0)
    term = SeparateVAETerm([SIZE] * 3, hidden=12, common=6, salient=4, width=2, doublings=1, **options)
    return Method(network(), {"separation": term}, image_size=SIZE)


def test_the_salient_code_of_the_healthy_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = method()
    term: Any = vae.terms["separation"]
    seen: list[Tensor] = []
    decode = term.decode
    monkeypatch.setattr(term, "decode", lambda c, s: seen.append(s) or decode(c, s))
    found = vae({"image": pairs(4), "patient": torch.tensor([0, 1, 1, 0])})
    assert found["loss"].isfinite()
    assert (seen[0][[0, 1, 6, 7]] == 0).all()
    assert (seen[0][2:6] != 0).all()
    with pytest.raises(ValueError, match=r"views must be of size \(8, 8, 8\), got \(12, 8, 8\); set image_size"):
        vae({"image": rand(2, 1, 1, 12, 8, 8, seed=0), "patient": torch.tensor([0, 1])})


def test_removal_and_swap_change_the_salient_code_alone() -> None:
    vae = method()
    term: Any = vae.terms["separation"]
    images = pairs(3)[:, 0]
    found = separate(vae, images)
    assert list(found) == list(PARTS)
    torch.testing.assert_close(found["pathology"], found["restored"] - found["without"])
    vae.eval()
    with torch.no_grad():
        codes = term.encode(vae._extractors()["image"], images[:, None])
        other = term.decode(codes["common"].mean[:1], codes["salient"].mean[1:2])
        healthy = term.decode(codes["common"].mean, torch.zeros(3, 4))
    torch.testing.assert_close(found["swapped"][:1], other)
    torch.testing.assert_close(found["without"], healthy)
    with pytest.raises(ValueError, match=r"a SeparateVAETerm is needed, which restores images, got \['separation'\]"):
        separate(CasesAndControls(network(), SIZE), images)


class Plain:
    """Views that are the volume itself, twice."""

    def set_random_state(self, seed: int | None = None, state: Any = None) -> "Plain":
        return self

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        image = torch.as_tensor(item["image"])
        return {**item, "image": torch.stack([image, image])}


def volumes(n: int = 8) -> list[dict[str, Any]]:
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    return [
        {"image": MetaTensor(rand(1, 10, 8, 8, seed=i) + i % 4, affine=affine), "patient": i % 2, "case": f"c{i}",
         "subject": f"s{i}", "kind": "big" if i % 4 == 1 else "small" if i % 2 else None}
        for i in range(n)
    ]  # fmt: skip


def test_pictures_and_volumes_lie_where_the_patient_does(tmp_path: Path) -> None:
    files = draw_separation(method(), volumes(), [SIZE] * 3, tmp_path, number=2)
    assert len(files) == 1 + 2 * len(PARTS)
    assert files[0].read_bytes().startswith(b"\x89PNG")
    image = nib.load(tmp_path / "patient_1_image.nii.gz")
    assert image.shape == (SIZE,) * 3
    np.testing.assert_allclose(image.affine[:3, 3], [2.0, 0.0, 0.0])  # one voxel of 2 mm was cut off
    np.testing.assert_allclose(np.asarray(image.dataobj), np.asarray(volumes()[1]["image"][0, 1:9]), atol=1e-6)
    with pytest.raises(ValueError, match="at least one patient is needed to show pathology, got none"):
        draw_separation(method(), volumes(1), [SIZE] * 3, tmp_path)


def test_probes_of_both_spaces_are_written_with_their_chance(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = CasesAndControls(network(), 8, hidden=12, common=6, salient=4)
    items = [{**item, "image": item["image"][:, :8]} for item in volumes(24)]
    found = embed_spaces(net, items, Plain(), attributes=["kind"], batch_size=5)  # type: ignore[arg-type]
    assert found.common.vectors.shape == (24, 6)
    assert found.salient.vectors.shape == (24, 4)
    table = found.write(tmp_path, folds=3)
    assert [(row["space"], row["label"], row["volumes"]) for row in table] == [
        ("common", "patient", 24), ("salient", "patient", 24), ("common", "kind", 12), ("salient", "kind", 12),
    ]  # fmt: skip
    assert all(row["chance"] == 0.5 and 0 <= row["accuracy"] <= 1 for row in table)
    assert {path.name for path in tmp_path.iterdir()} == {"common", "salient", "probes.csv"}
    assert (tmp_path / "probes.csv").read_text().startswith("space,label,volumes,accuracy,chance\ncommon,patient,24,")


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such checkpoint: .*; pretrain first"):
        restored(method(), tmp_path / "none.pt")
    torch.save({"method": CasesAndControls(network(), SIZE).state_dict()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="does not fit the method; pass the settings and overlays of its run"):
        restored(method(), tmp_path / "checkpoint.pt")
