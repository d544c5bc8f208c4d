"""Curation against slow references, planted duplicates and planted leaks."""

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import onnx
import pytest
import torch
from dicom_series import write_series
from monai.networks.nets import DynUNet
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from typer.testing import CliRunner

from monai_cl.cli import app
from monai_cl.data import load_datalist, scan
from monai_cl.data.curation import (
    check_pretraining,
    curate,
    difference_hash,
    find_leaks,
    greedy_reduce,
    hamming,
    kept_slices,
)
from monai_cl.data.curation.duplicates import find_pairs
from monai_cl.data.curation.embedding import load_embedding
from monai_cl.data.curation.reduction import Criterion
from monai_cl.data.curation.slice_hash import to_grey
from monai_cl.data.curation.volume_marks import mark, turn
from monai_cl.weights import save_network

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data in ../shared/data")
SHAPE = (40, 36, 24)


def anatomy(seed: int, shape=SHAPE) -> np.ndarray:
    """A smooth picture that is unlike that of any other seed."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, 3)
    return (1000 * smooth / smooth.std()).astype("float32")


def save(path: Path, values: np.ndarray, affine=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1, 2, 1]) if affine is None else affine), path)
    return path


def marks_of(values: np.ndarray, affine=None):
    return mark(values.astype("float32"), np.diag([1.0, 1, 2, 1]) if affine is None else affine)


def study(folder: Path, sections: dict[str, dict[str, np.ndarray]], **fields) -> Path:
    content = {}
    for section, volumes in sections.items():
        content[section] = []
        for name, values in volumes.items():
            save(folder / f"{name}.nii.gz", values)
            item = {"image": f"{name}.nii.gz", "subject": name.split("_")[0]}
            if fields.get("labelled") == section:
                save(folder / f"{name}_label.nii.gz", values)
                item["label"] = f"{name}_label.nii.gz"
            content[section].append(item)
    (folder / "study.json").write_text(json.dumps({"name": "made", "hide_names": False, **content}))
    return folder / "study.json"


def reasons(result) -> dict[str, str]:
    return {entry.name.removesuffix(".nii.gz"): entry.reason for entry in result.entries}


# Hashes


def test_hash_equals_the_definition_pixel_by_pixel():
    grey = to_grey(np.random.default_rng(0).normal(size=(5, 31, 45)))
    for plane, found in zip(grey, difference_hash(grey), strict=True):
        small = Image.fromarray(plane).resize((9, 8), Image.Resampling.LANCZOS)
        bits = ""
        for row in range(8):
            for column in range(8):
                bits += "1" if small.getpixel((column + 1, row)) > small.getpixel((column, row)) else "0"
        assert int(bits, 2) == int(found)


def test_hash_does_not_change_with_scale_and_offset():
    slices = np.random.default_rng(1).integers(-1000, 2000, (6, 40, 40)).astype("float32")
    distance = hamming(difference_hash(to_grey(slices)), difference_hash(to_grey(3 * slices + 500)))
    assert distance.max() <= 2  # rounding to 8 bits


def test_hamming_counts_bits():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 2**63, (2, 50), dtype=np.uint64)
    assert hamming(a, b).tolist() == [bin(int(x) ^ int(y)).count("1") for x, y in zip(a, b, strict=True)]


# Greedy reduction


def slow_greedy(hashes: np.ndarray, threshold: int) -> list[int]:
    kept: list[int] = []
    stands = []
    for index, value in enumerate(hashes):
        near = [k for k in kept if bin(int(value) ^ int(hashes[k])).count("1") <= threshold]
        stands.append(near[0] if near else index)
        kept += [] if near else [index]
    return stands


@pytest.mark.parametrize("threshold", [0, 6, 12, 20])
def test_greedy_reduction_equals_a_loop(threshold):
    volume = anatomy(3, (40, 36, 60))
    criterion = Criterion.of("hash", to_grey(np.moveaxis(volume, 2, 0)))
    stands = criterion.reduce(threshold)
    assert stands.tolist() == slow_greedy(criterion.features, threshold)
    kept = np.flatnonzero(stands == np.arange(len(stands)))
    far = hamming(criterion.features[kept][:, None], criterion.features[kept][None])
    assert (far + 99 * np.eye(len(kept)) > threshold).all()
    assert (hamming(criterion.features, criterion.features[stands]) <= threshold).all()


def test_fewer_slices_stay_at_larger_thresholds_and_a_copy_goes_at_zero():
    slices = np.moveaxis(anatomy(4), 2, 0)
    criterion = Criterion.of("hash", to_grey(np.concatenate([slices, slices[3:5]])))
    counts = [int((criterion.reduce(t) == np.arange(26)).sum()) for t in (0, 6, 12, 64)]
    assert criterion.reduce(0)[-2:].tolist() == [3, 4]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


@pytest.mark.parametrize("method", ["ssim", "mi", "embedding"])
def test_other_similarities_drop_a_copy_and_keep_what_is_unlike(method):
    slices = np.stack([anatomy(seed, (64, 64, 1))[..., 0] for seed in (1, 1, 2, 3)])
    slices[1] += 5  # the same up to its grey scale
    criterion = Criterion.of(method, to_grey(slices), embed=lambda planes: planes.reshape(len(planes), -1) - 0.5)
    assert criterion.reduce(0.95).tolist() == [0, 0, 2, 3]


def test_mutual_information_equals_that_of_scikit_learn():
    from sklearn.metrics import normalized_mutual_info_score

    from monai_cl.data.curation.reduction import _mutual_information

    one, two = to_grey(np.stack([anatomy(1, (64, 64, 1))[..., 0], anatomy(2, (64, 64, 1))[..., 0]]))
    expected = normalized_mutual_info_score((one // 8).ravel(), (two // 8).ravel())
    assert _mutual_information(one, two[None])[0] == pytest.approx(expected)


def test_every_third():
    assert Criterion("every-n", np.zeros(7)).reduce(3).tolist() == [0, 0, 0, 3, 3, 3, 6]


def test_greedy_reduction_of_nothing():
    assert greedy_reduce(0, lambda one, others: others > one).tolist() == []


# Duplicates


def changed(values: np.ndarray, how: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    return {
        "noise": values + rng.normal(scale=0.05 * values.std(), size=values.shape),
        "scale": 0.3 * values + 77,
        "rounded": np.round(values / 20),
        "resampled": zoom(values, (0.8, 0.8, 1), order=1),
        "thicker": zoom(values, (1, 1, 0.75), order=1),
    }[how].astype("float32")


@pytest.mark.parametrize("how", ["noise", "scale", "rounded", "resampled", "thicker"])
def test_near_duplicates_are_found(how):
    pairs = find_pairs([marks_of(anatomy(1)), marks_of(anatomy(2)), marks_of(changed(anatomy(1), how))])
    assert [(pair.first, pair.second, pair.kind) for pair in pairs] == [(0, 2, "near")]


def time_point(seed: int, time: int) -> np.ndarray:
    """A body in air, with the noise of one time: picture and noise are those of any other time and its own."""
    where = np.indices(SHAPE).T - np.array(SHAPE) / 2
    body = np.linalg.norm(where / np.array(SHAPE), axis=-1).T < 0.3
    rng = np.random.default_rng(1000 * seed + time)
    tissue = body * (3000 + 0.5 * anatomy(seed))
    return np.hypot(tissue + rng.normal(0, 15, SHAPE), rng.normal(0, 15, SHAPE)).astype("float32")


def test_time_points_of_one_series_are_near_duplicates_though_air_is_noise():
    times = [time_point(1, time) for time in range(4)]
    assert np.corrcoef(times[0].ravel(), times[1].ravel())[0, 1] > 0.9997
    pairs = find_pairs([marks_of(one) for one in [*times, time_point(2, 0)]])
    assert [(pair.first, pair.second, pair.kind) for pair in pairs] == [
        (i, j, "near") for i in range(4) for j in range(i + 1, 4)
    ]
    assert re.fullmatch(r"coarse pictures correlate by (1|0\.999)\d*(\.0+)?", pairs[0].detail)


def test_of_time_points_one_stays_and_no_two_are_on_both_sides(tmp_path):
    volumes = {f"dyn{time}_x": time_point(1, time) for time in range(4)}
    path = study(tmp_path, {"unlabelled": volumes | {"other_x": time_point(2, 0)}})
    result = curate(path)
    assert [name for name, reason in reasons(result).items() if not reason] == ["dyn0_x", "other_x"]
    assert [entry.group for entry in result.entries] == [0, 0, 0, 0, 1]
    first, second = ({"unlabelled": {name: volumes[name]}} for name in ("dyn0_x", "dyn3_x"))
    lists = [curate(study(tmp_path / name, one)).datalist for name, one in (("a", first), ("b", second))]
    leaks = find_leaks(*(json.loads(one.read_text())["unlabelled"] for one in lists))
    assert [str(leak) for leak in leaks] == ["dyn0_x.nii.gz is nearly the same picture as dyn3_x.nii.gz"]


def test_mirrored_inverted_and_other_pictures_are_no_duplicates():
    one = time_point(1, 0)
    others = [one[::-1], one.max() - one, time_point(2, 0), np.roll(one, 3, axis=0)]
    assert find_pairs([marks_of(values) for values in (one, *others)]) == []


def test_uniform_volumes_correlate_with_nothing():
    marks = [marks_of(np.full(SHAPE, value)) for value in (0, 7)] + [marks_of(anatomy(1))]
    assert {(pair.first, pair.second) for pair in find_pairs(marks)} <= {(0, 1)}


def test_part_of_a_volume_is_found():
    whole = anatomy(1, (40, 36, 40))
    pairs = find_pairs([marks_of(whole), marks_of(whole[..., 25:]), marks_of(anatomy(2))])
    assert [(pair.first, pair.second, pair.kind) for pair in pairs] == [(0, 1, "part")]


def test_the_same_voxels_in_another_orientation_are_an_exact_duplicate():
    values = anatomy(1)
    pairs = find_pairs([marks_of(values), marks_of(values[::-1, ::-1], np.diag([-1.0, -1, 2, 1]))])
    assert [pair.kind for pair in pairs] == ["exact"]


def test_turning_swaps_and_flips_but_keeps_slices_last():
    values = np.arange(24).reshape(2, 3, 4)
    swapped, flipped = turn(values, np.array([[0, 1.0, 0, 0], [-1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]))
    assert flipped
    np.testing.assert_array_equal(swapped, values.swapaxes(0, 1)[:, ::-1, ::-1])


# The study


def test_curated_study_drops_repetitions_and_deletes_nothing(tmp_path):
    a, b = anatomy(1), anatomy(2)
    volumes = {"p1_a": a, "p2_a": a.copy(), "p3_a": changed(b, "noise"), "p4_a": b, "p5_a": anatomy(5)}
    path = study(tmp_path, {"unlabelled": volumes})
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    result = curate(path)
    assert reasons(result) == {
        "p1_a": "",
        "p2_a": "exact duplicate",
        "p3_a": "",
        "p4_a": "near duplicate",
        "p5_a": "",
    }
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    written = json.loads(result.datalist.read_text())
    assert [item["image"] for item in written["unlabelled"]] == ["p1_a.nii.gz", "p3_a.nii.gz", "p5_a.nii.gz"]
    assert written["name"] == "made"
    assert written["curation"]["dropped"] == {"exact duplicate": 1, "near duplicate": 1}
    with open(result.table_file, newline="") as stream:
        rows = {row["image"]: row for row in csv.DictReader(stream)}
    assert rows["p2_a.nii.gz"]["like"] == "p1_a.nii.gz"
    assert (rows["p1_a.nii.gz"]["group"], rows["p3_a.nii.gz"]["group"]) == (
        rows["p2_a.nii.gz"]["group"],
        rows["p4_a.nii.gz"]["group"],
    )
    assert load_datalist(result.datalist, "unlabelled")
    assert curate(path).datalist.read_bytes() == result.datalist.read_bytes()


def test_kept_slices_are_those_of_the_file_in_slice_order(tmp_path):
    repeated = np.repeat(np.random.default_rng(0).normal(size=(40, 36, 8)), 3, axis=2)
    path = study(tmp_path, {"unlabelled": {"p1_a": repeated}})
    (item,) = json.loads(curate(path, threshold=0).datalist.read_text())["unlabelled"]
    assert kept_slices(item) == list(range(0, 24, 3))
    assert item["weight"] == pytest.approx(1 / 3, abs=1e-4)


def test_scope_of_the_data_set_drops_slices_that_another_patient_has(tmp_path):
    a, b = np.random.default_rng(0).normal(size=(2, *SHAPE))
    both = np.concatenate([a[..., :4], b[..., 4:]], axis=2)
    path = study(tmp_path, {"unlabelled": {"p1_a": a, "p2_a": both}})
    kept = {
        scope: sum(len(entry.slices) for entry in curate(path, scope=scope, threshold=0).entries)
        for scope in ("volume", "dataset")
    }
    assert kept["volume"] - kept["dataset"] == 4


def test_labelled_near_duplicates_stay(tmp_path):
    a = anatomy(1)
    path = study(tmp_path, {"training": {"p1_a": a, "p1_b": changed(a, "noise")}}, labelled="training")
    result = curate(path)
    assert set(reasons(result).values()) == {""}
    assert [pair.kind for pair in result.pairs] == ["near"]


def test_unreadable_volumes_are_named(tmp_path):
    path = study(tmp_path, {"unlabelled": {"p1_a": anatomy(1), "p2_a": anatomy(2)}})
    (tmp_path / "p2_a.nii.gz").write_bytes(b"")
    assert reasons(curate(path)) == {"p1_a": "", "p2_a": "unreadable"}


def test_dry_run_writes_nothing_and_tells_what_thresholds_keep(tmp_path):
    path = study(tmp_path, {"unlabelled": {"p1_a": anatomy(1)}})
    result = curate(path, method="mi", threshold=0.9, dry_run=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["p1_a.nii.gz", "study.json"]
    assert list(result.thresholds.values()) == sorted(result.thresholds.values(), reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method must be one of hash, ssim, mi, embedding, every-n, got 'magic'"),
        ({"method": "ssim"}, "method 'ssim' needs a threshold, none was published"),
        ({"threshold": 65}, "threshold of method 'hash' must be between 0 and 64, got 65"),
        ({"method": "embedding", "threshold": 0.9}, "needs a network: give embed"),
        ({"scope": "world"}, "scope must be one of volume, dataset, got 'world'"),
        ({"on_leak": "shout"}, "on_leak must be one of refuse, drop, report, got 'shout'"),
        ({"hold_out": 1.0}, r"hold_out must be at least 0 and below 1, got 1\.0"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    path = study(tmp_path, {"unlabelled": {"p1_a": anatomy(1)}})
    with pytest.raises(ValueError, match=message):
        curate(path, **options)


# Leaks


def leaking(tmp_path: Path) -> Path:
    """p1 is on both sides; p3 is a noisy copy of the held-out p4 under another name."""
    a, b = anatomy(1), anatomy(2)
    unlabelled = {"p1_a": a, "p3_a": changed(b, "noise"), "p5_a": anatomy(5)}
    return study(tmp_path, {"unlabelled": unlabelled, "test": {"p1_b": anatomy(9), "p4_a": b}})


def test_leaks_are_refused_by_default_and_named(tmp_path):
    path = leaking(tmp_path)
    message = r"must share no patient and no picture, got 1 \(subject p1\)"
    with pytest.raises(ValueError, match=message):  # the near duplicate is dropped as one
        curate(path)
    assert not (tmp_path / "study.curated.json").exists()
    assert (tmp_path / "study.curated.curation.csv").exists()


def test_leaks_can_be_dropped_or_reported(tmp_path):
    path = leaking(tmp_path)
    dropped = curate(path, on_leak="drop")
    assert reasons(dropped) == {
        "p1_a": "patient is held out",
        "p3_a": "near duplicate",
        "p5_a": "",
        "p1_b": "",
        "p4_a": "",
    }
    check_pretraining(dropped.datalist, "unlabelled")
    reported = curate(path, on_leak="report")
    with pytest.raises(ValueError, match=r"unlabelled and test must share no patient and no picture, got 1"):
        check_pretraining(reported.datalist, "unlabelled")


def test_two_lists_are_compared_by_patient_content_and_picture(tmp_path):
    a, b, c = anatomy(1), anatomy(2), anatomy(3)
    ours = study(tmp_path / "one", {"unlabelled": {"p1_a": a, "p2_a": b, "p3_a": c, "p6_a": anatomy(6)}})
    theirs = study(tmp_path / "two", {"test": {"q1_a": a, "q2_a": changed(b, "noise"), "p3_b": anatomy(8)}})
    other = curate(theirs).datalist
    result = curate(ours, against=other, on_leak="report")
    assert [(leak.kind, leak.first) for leak in result.leaks] == [
        ("subject", "p3"),
        ("content", "p1_a.nii.gz"),
        ("near", "p2_a.nii.gz"),
    ]
    assert reasons(curate(ours, against=other, on_leak="drop")) == {
        "p1_a": "picture is held out",
        "p2_a": "picture is held out",
        "p3_a": "patient is held out",
        "p6_a": "",
    }


def test_pretraining_on_what_is_held_out_is_refused_without_marks_too(tmp_path):
    items = [{"image": "a.nii", "subject": 1}], [{"image": "b.nii", "subject": 1}]
    (tmp_path / "d.json").write_text(json.dumps({"unlabelled": items[0], "validation": items[1]}))
    with pytest.raises(ValueError, match=r"unlabelled and validation must share no patient .* \(subject 1\)"):
        check_pretraining(tmp_path / "d.json", "unlabelled")
    check_pretraining(tmp_path / "d.json", "unlabelled+validation")


def test_leaks_of_lists_that_share_nothing():
    assert find_leaks([{"image": "a", "subject": "1"}], [{"image": "b", "subject": "2"}]) == []


def test_held_out_patients_move_with_all_their_volumes_and_duplicates(tmp_path):
    volumes = {f"p{n}_{part}": anatomy(10 * n + k) for n in range(6) for k, part in enumerate("ab")}
    volumes["q0_a"] = volumes["p0_a"] + 1
    path = study(tmp_path, {"training": volumes}, labelled="training")
    written = json.loads(curate(path, hold_out=0.5, on_leak="report").datalist.read_text())
    groups = [{item["group"] for item in written[section]} for section in ("training", "validation")]
    assert not groups[0] & groups[1]
    assert len(groups[1]) == 3
    check_pretraining(tmp_path / "study.curated.json", "training")


def test_an_onnx_network_embeds_slices(tmp_path):
    pool = onnx.helper.make_node("AveragePool", ["slice"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8])
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, size, size])
        for name, size in (("slice", 64), ("pooled", 8))
    ]
    graph = onnx.helper.make_graph([pool], "net", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, tmp_path / "net.onnx")
    rows = load_embedding(tmp_path / "net.onnx")(np.ones((3, 64, 64), "float32"))
    assert rows.shape == (3, 64)
    with pytest.raises(FileNotFoundError, match="no such network"):
        load_embedding(tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_text("no network")
    with pytest.raises(ValueError, match=r"bad\.onnx is no ONNX network"):
        load_embedding(tmp_path / "bad.onnx")


def slice_network(**changes: Any) -> DynUNet:
    given = {"filters": [4, 8, 8], "kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
    return DynUNet(2, 1, 4, norm_name="instance", **given | changes)


def test_what_was_pretrained_on_slices_embeds_slices(tmp_path):
    contract = {"filters": [4, 8, 8], "norm": "instance", "in_channels": 1, "out_channels": 4}
    save_network(slice_network(), tmp_path / "pretrained.pt", contract=contract)
    slices = np.random.default_rng(0).random((3, 64, 64), np.float32)
    rows = load_embedding(tmp_path / "pretrained.pt")(slices)
    assert rows.shape == (3, 80)
    assert not np.allclose(rows[0], rows[1])
    save_network(slice_network(), tmp_path / "pretrained.pt", contract={**contract, "filters": [4, 8, 16]})
    with pytest.raises(ValueError, match="does not fill the network"):
        load_embedding(tmp_path / "pretrained.pt")
    for wrong, said in (({"filters": None}, "must give the filters"), ({"in_channels": 2}, "slices have one channel")):
        save_network(slice_network(), tmp_path / "pretrained.pt", contract={**contract, **wrong})
        with pytest.raises(ValueError, match=said):
            load_embedding(tmp_path / "pretrained.pt")


class _Canary:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_programs_and_pickles_are_refused_unread(tmp_path):
    torch.save(_Canary(tmp_path / "canary"), tmp_path / "net.pt2")
    with pytest.raises(ValueError, match=r"reading net\.pt2 could run code in it: export the network to ONNX"):
        load_embedding(tmp_path / "net.pt2")
    torch.save(_Canary(tmp_path / "canary"), tmp_path / "net.pt")
    (tmp_path / "net.json").write_text('{"filters": [4, 8, 8], "norm": "instance", "in_channels": 1}')
    with pytest.raises(ValueError, match=r"objects of posix\.mkdir, which run code"):
        load_embedding(tmp_path / "net.pt")
    assert not (tmp_path / "canary").exists()


def test_command_says_what_it_did_and_names_nobody(tmp_path, monkeypatch):
    root = tmp_path / "export"
    who = {"PatientName": "Musterfrau^Erika", "PatientID": "ID99887"}
    write_series(root / "Musterfrau_Erika", range(8), **who)
    shutil.copytree(root / "Musterfrau_Erika", root / "again")
    write_series(root / "third", range(8), PatientID="other")
    scan(root, tmp_path / "study.json", key=tmp_path / "key")
    monkeypatch.setenv("MONAI_CL_KEY", str(tmp_path / "key"))
    said = CliRunner().invoke(
        app,
        ["curate", str(tmp_path / "study.json"), "--dataset-dir", str(root)],
        catch_exceptions=False,
    )
    assert said.exit_code == 0
    assert "no file was deleted" in said.output.replace("\n", " ")
    assert "Slices kept by method hash" in said.output
    output = said.output + "".join(one.read_text() for one in tmp_path.glob("study.*"))
    assert not [word for word in ("Musterfrau", "Erika", "99887") if word.casefold() in output.casefold()]


# Real data


@needs_data
def test_part_of_the_same_abdomen_is_found_though_its_header_is_wrong(tmp_path):
    shutil.copytree(SHARED / "ct", tmp_path / "ct")
    result = scan(tmp_path / "ct", tmp_path / "study.json", hide_names=False)
    curated = curate(result.datalist, dataset_dir=tmp_path / "ct", dry_run=True)
    assert [pair.kind for pair in curated.pairs] == ["part"]
    names = [curated.entries[index].name for index in (curated.pairs[0].first, curated.pairs[0].second)]
    assert sorted(map(Path, names)) == [
        Path(f"imagesTr/{name}.nii.gz") for name in ("ts_example_ct", "ts_example_ct_sm")
    ]


@needs_data
def test_phases_of_a_heart_stay_in_one_group_and_copies_under_two_patients_are_found(tmp_path):
    names = ["patient020", "patient006", "patient074", "patient076"]
    items = [
        {"image": f"imagesTr/{name}_frame{phase}.nii.gz", "subject": name} for name in names for phase in ("01", "02")
    ]
    (tmp_path / "list.json").write_text(json.dumps({"unlabelled": items}))
    result = curate(tmp_path / "list.json", dataset_dir=SHARED / "acdc", dry_run=True)
    dropped = {entry.name: entry.like for entry in result.entries if entry.reason}
    assert dropped == {  # the data set holds one patient under two numbers
        f"imagesTr/patient076_frame{phase}.nii.gz": f"imagesTr/patient074_frame{phase}.nii.gz" for phase in ("01", "02")
    }
    assert [entry.group for entry in result.entries] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert {pair.kind for pair in result.pairs} == {"exact", "alike"}


@needs_data
def test_sequences_of_a_patient_are_no_duplicates_and_time_points_are(tmp_path):
    for name in ("T1", "T2", "FLAIR"):
        shutil.copy(SHARED / f"mr_misc/stroke_{name}.nii.gz", tmp_path / f"{name}.nii.gz")
    series = nibabel.load(SHARED / "mr_misc/niivue_pcasl_4d.nii.gz")
    for time in range(4):
        nibabel.save(series.slicer[..., time], tmp_path / f"time{time}.nii.gz")
    names = sorted(path.name for path in tmp_path.glob("*.nii.gz"))
    (tmp_path / "list.json").write_text(json.dumps({"unlabelled": [{"image": name} for name in names]}))
    result = curate(tmp_path / "list.json", dry_run=True)
    kept = [entry.name for entry in result.entries if not entry.reason]
    assert kept == ["FLAIR.nii.gz", "T1.nii.gz", "T2.nii.gz", "time0.nii.gz"]


@needs_data
def test_real_slices_are_kept_pairwise_apart():
    from monai_cl.transforms.load import LoadVolume

    volume = LoadVolume()(SHARED / "ct/imagesTr/ts_example_ct.nii.gz")
    marks = mark(volume[0].numpy(), np.asarray(volume.affine))
    counts = []
    for threshold in (0, 6, 12):
        stands = Criterion("hash", marks.hashes).reduce(threshold)
        kept = np.flatnonzero(stands == np.arange(len(stands)))
        far = hamming(marks.hashes[kept][:, None], marks.hashes[kept][None])
        assert (far + 99 * np.eye(len(kept)) > threshold).all()
        counts.append(len(kept))
    assert counts == sorted(counts, reverse=True)
    assert 0 < counts[1] < counts[0]
