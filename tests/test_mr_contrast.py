"""Simulated contrasts as a MONAI transform: contract, physics in every voxel, exact replay."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, CopyItemsd, MapTransform, Randomizable, Transform

from monai_cl.qmri import FAMILIES, draw_t2, mix, protocol_from_dict, simulate, tissue
from monai_cl.qmri.protocols import InversionRecovery, SpinEcho
from monai_cl.transforms import MRArtefacts, RandMRContrast, RandMRContrastD, RandMRContrastd, RandMRContrastDict
from monai_cl.transforms.mr_artefacts import degrade

MAPS = ("pd", "t1", "t2", "t2_star", "mtsat")
TISSUES = ("white_matter", "grey_matter", "csf")
SHAPE = (6, 5, 4)


def make_maps(names: tuple[str, ...] = MAPS, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    """Voxels of the three tissues, each a little different, one empty."""
    rng = np.random.RandomState(seed)
    drawn = [tissue(TISSUES[rng.randint(3)]).draw(rng) for _ in range(int(np.prod(shape)))]
    maps = torch.tensor([[getattr(one, name) for one in drawn] for name in names]).reshape(len(names), *shape)
    maps[(slice(None), *(0 for _ in shape))] = 0
    return maps


def named(maps: torch.Tensor, names: tuple[str, ...] = MAPS) -> dict[str, torch.Tensor]:
    return dict(zip(names, maps, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_voxel_is_what_the_signal_equation_gives(name: str) -> None:
    maps = make_maps()
    image = RandMRContrast([name]).set_random_state(seed=1)(maps)
    protocol = image.meta["mr_protocol"]
    assert protocol["family"] == name
    assert image.shape == (1, *SHAPE)
    assert torch.equal(image.as_tensor()[0], simulate(protocol, **named(maps)))
    assert image[0, 0, 0, 0] == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_record_replays_exactly_by_way_of_json(name: str) -> None:
    maps = make_maps(("pd", "t1", "t2_star", "mtsat"))
    transform = RandMRContrast([name], ("pd", "t1", "t2_star", "mtsat")).set_random_state(seed=2)
    image = transform(maps)
    record = json.loads(json.dumps(image.meta["mr_simulation"]))
    again = transform.apply(maps, record)
    assert torch.equal(again, image)
    assert again.meta["mr_simulation"] == image.meta["mr_simulation"]


def test_a_protocol_alone_gives_the_image_where_nothing_else_was_drawn() -> None:
    maps, transform = make_maps(), RandMRContrast().set_random_state(seed=3)
    image = transform(maps)
    assert torch.equal(transform.apply(maps, image.meta["mr_protocol"]), image)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor])
def test_arrays_of_any_kind_and_dimension_give_the_same_image(kind: type, dim: int) -> None:
    maps = make_maps(shape=SHAPE[:dim])
    expected = RandMRContrast(["flair"]).set_random_state(seed=0)(maps)
    given = maps.numpy() if kind is np.asarray else maps
    assert torch.equal(RandMRContrast(["flair"]).set_random_state(seed=0)(kind(given)), expected)


def test_metadata_are_kept_and_the_input_is_not_touched() -> None:
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    maps = MetaTensor(make_maps(), affine=affine, meta={"filename_or_obj": "a.nii"})
    before = maps.clone()
    image = RandMRContrast(["t2w_fse"])(maps)
    assert isinstance(image, MetaTensor)
    assert torch.equal(image.affine, affine)
    assert image.meta["filename_or_obj"] == "a.nii"
    assert "mr_protocol" not in maps.meta
    assert torch.equal(maps, before)


def test_equal_seeds_give_equal_images_and_draws_differ() -> None:
    maps = make_maps()
    one, two = (RandMRContrast().set_random_state(seed=5) for _ in range(2))
    assert isinstance(one, Randomizable)
    assert isinstance(one, Transform)
    images = [one(maps) for _ in range(4)]
    assert all(torch.equal(image, two(maps)) for image in images)
    assert len({json.dumps(image.meta["mr_protocol"]) for image in images}) == 4


def test_it_is_pickled_and_its_records_stay_apart_in_a_batch() -> None:
    transform = RandMRContrast(["t1w_mprage", "flair", "swi"])
    assert pickle.loads(pickle.dumps(transform)).maps == transform.maps
    data = Dataset([make_maps(seed=n) for n in range(4)], transform.set_random_state(seed=0))
    (batch,) = DataLoader(data, batch_size=4, num_workers=1)
    assert batch.shape == (4, 1, *SHAPE)
    records = batch.meta["mr_protocol"]
    for n, record in enumerate(records):
        assert torch.equal(batch[n, 0].as_tensor(), simulate(record, **named(make_maps(seed=n))))
    for one, record in zip(decollate_batch(batch), records, strict=True):
        assert one.meta["mr_protocol"] == record
        assert one.meta["mr_simulation"]["protocol"] == record


def test_gradients_reach_the_maps() -> None:
    maps = make_maps().requires_grad_()
    RandMRContrast(["t1w_mprage"])(maps).sum().backward()
    assert bool(maps.grad[1].abs().sum() > 0)
    assert bool(maps.grad.isfinite().all())


def test_a_missing_t2_is_drawn_below_r2_star_and_the_record_says_so() -> None:
    names = ("pd", "t1", "t2_star")
    maps = make_maps(names)
    image = RandMRContrast(["t2w_fse"], names).set_random_state(seed=4)(maps)
    record = image.meta["mr_simulation"]["t2"]
    assert record["t2"] == "drawn below R2*, not measured"
    t2, facts = draw_t2(maps[2], np.random.RandomState(record["seed"]), t1=maps[1])
    assert bool((t2 >= maps[2]).all())
    assert facts == {key: value for key, value in record.items() if key != "seed"}
    expected = simulate(image.meta["mr_protocol"], pd=maps[0], t1=maps[1], t2=t2)
    assert torch.equal(image[0].as_tensor(), expected)
    assert not torch.equal(expected, simulate(image.meta["mr_protocol"], pd=maps[0], t1=maps[1], t2=maps[2]))


def test_no_t2_is_drawn_where_there_is_one_or_none_is_needed() -> None:
    assert "t2" not in RandMRContrast(["t2w_fse"]).randomize(SHAPE)
    assert "t2" not in RandMRContrast(["t1w_mprage"], ("pd", "t1", "t2_star")).randomize(SHAPE)


def test_a_measured_transmit_field_scales_the_flip_angle() -> None:
    maps = torch.cat([make_maps(), torch.full((1, *SHAPE), 0.8)])
    image = RandMRContrast(["t1w_spgr"], (*MAPS, "b1")).set_random_state(seed=0)(maps)
    assert torch.equal(image[0].as_tensor(), simulate(image.meta["mr_protocol"], b1=maps[5], **named(maps[:5])))


def test_a_measured_field_offset_acts_on_balanced_ssfp_alone() -> None:
    offset = torch.linspace(-200, 200, 120).reshape(SHAPE)
    maps = torch.cat([make_maps(), offset[None]])
    for name, field in (("bssfp", offset), ("swi", None)):
        image = RandMRContrast([name], (*MAPS, "b0")).set_random_state(seed=0)(maps)
        expected = simulate(image.meta["mr_protocol"], off_resonance=field, **named(maps[:5]))
        assert torch.equal(image[0].as_tensor(), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_hot_fractions_give_the_pure_tissue(name: str) -> None:
    one_hot = torch.eye(3).reshape(3, 3, 1)
    maps = torch.tensor([[getattr(tissue(t).typical(), m) for t in TISSUES] for m in MAPS]).reshape(5, 3, 1)
    plain = RandMRContrast([name]).set_random_state(seed=1)(maps)
    mixed = RandMRContrast([name], fractions=TISSUES).set_random_state(seed=1)(torch.cat([maps, one_hot]))
    torch.testing.assert_close(mixed.as_tensor(), plain.as_tensor())
    drawn = RandMRContrast([name], (), fractions=TISSUES).set_random_state(seed=1)(one_hot)
    for n, t in enumerate(TISSUES):
        values = {m: torch.tensor(v) for m, v in drawn.meta["mr_simulation"]["tissues"][t].items()}
        torch.testing.assert_close(drawn[0, n, 0].as_tensor(), simulate(drawn.meta["mr_protocol"], **values))


def test_shared_voxels_mix_signed_signals_not_maps() -> None:
    share = torch.tensor([[1.0, 0.0, 0.5, 0.2, 0.0], [0.0, 1.0, 0.5, 0.4, 0.0]])
    white, fluid = (tissue(name).typical() for name in ("white_matter", "csf"))
    pure = torch.tensor([[getattr(white, m), getattr(fluid, m)] for m in MAPS])
    maps = pure @ share
    maps[:, 4] = pure[:, 0]  # a voxel that no fraction describes keeps its own maps
    protocol = InversionRecovery(
        tr=9.0, ti=1.2, echo_spacing=0.01, train_length=16, effective_echo=10, refocusing_angle=180.0
    )
    image = RandMRContrast([protocol], fractions=("white_matter", "csf"))(torch.cat([maps, share]))
    signals = protocol.coherent(**{m: pure[n] for n, m in enumerate(MAPS)})[0]
    expected = mix(share, signals)
    expected[4] = signals[0].abs()
    torch.testing.assert_close(image[0].as_tensor(), expected)
    assert signals[0] * signals[1] < 0
    assert abs(float(image[0, 2]) - float(protocol.signal(**named(maps))[2])) > 0.1 * float(image[0, 2])


def brain_beside(other: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxels from white matter to a tissue that is not listed: maps (5, 6) and the share of white matter (1, 6)."""
    share = torch.tensor([[1.0, 0.9, 0.5, 0.2, 1e-4, 0.0]])
    white, beside = (tissue(name).typical() for name in ("white_matter", other))
    amounts = torch.cat([share * white.pd, (1 - share) * beside.pd])
    rows = [amounts.sum(0)]
    for name in MAPS[1:]:
        values = torch.tensor([[getattr(white, name)], [getattr(beside, name)]])
        rates = values if name == "mtsat" else 1 / values
        mean = (amounts * rates).sum(0) / rows[0]
        rows.append(mean if name == "mtsat" else 1 / mean)
    return torch.stack(rows), share


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("other", ["fat", "white_matter_lesion"])
def test_what_fractions_leave_of_a_voxel_keeps_its_signal(name: str, other: str) -> None:
    maps, share = brain_beside(other)
    transform = RandMRContrast([name], fractions=("white_matter",)).set_random_state(seed=0)
    image = transform(torch.cat([maps, share]))
    protocol = protocol_from_dict(image.meta["mr_protocol"])
    ends = protocol.coherent(**named(maps[:, [0, 5]]))
    mixed = [mix(torch.cat([share, 1 - share]), one, signed=True) for one in ends]
    torch.testing.assert_close(image[0].as_tensor(), protocol.combine(*mixed), rtol=1e-3, atol=1e-3)


def test_the_rest_of_a_voxel_may_be_air() -> None:
    maps, share = brain_beside("fat")
    maps[0] = share[0] * maps[0, 0]  # densities add up
    maps[1:] = maps[1:, :1]
    image = RandMRContrast(["t2w_fse"], fractions=("white_matter",)).set_random_state(seed=0)(torch.cat([maps, share]))
    torch.testing.assert_close(image[0].as_tensor(), share[0] * float(image[0, 0]))


def test_the_purest_voxels_stand_for_a_tissue_that_fills_none() -> None:
    share = torch.tensor([[1.0, 0.4], [0.0, 0.6]])
    maps = make_maps(shape=(4,))[:, 1:3]
    image = RandMRContrast(["t1w_se"], fractions=("white_matter", "csf")).set_random_state(seed=0)
    out = image(torch.cat([maps, share]))
    signals = simulate(out.meta["mr_protocol"], **named(maps))
    torch.testing.assert_close(out[0].as_tensor(), torch.stack([signals[0], 0.4 * signals[0] + 0.6 * signals[1]]))


def test_families_that_the_maps_do_not_allow_are_left_out_by_default() -> None:
    names = {family.name for family in RandMRContrast(maps=("pd", "t1", "t2")).sequences}
    assert {"t1w_se", "t2w_fse", "flair", "bssfp"} <= names
    assert not {"t1w_mprage", "swi", "mtw_spgr"} & names


def test_mp2rage_needs_neither_t2_nor_t2_star() -> None:
    maps = make_maps()
    image = RandMRContrast(["t1w_mp2rage"], ("pd", "t1")).set_random_state(seed=0)(maps[:2])
    full = RandMRContrast().apply(maps, image.meta["mr_protocol"])
    torch.testing.assert_close(image.as_tensor(), full.as_tensor(), rtol=1e-5, atol=1e-6)
    told = r"allow t1w_mp2rage alone; add maps: t2_star for t1w_mprage, .*; t2 for t1w_se, .*, or name it in sequences"
    with pytest.raises(ValueError, match=told):  # no change of contrast could be drawn
        RandMRContrast(maps=("pd", "t1"))


def test_t2_star_weighs_the_images_of_mp2rage_in_shared_voxels() -> None:
    share = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
    white, fluid = (tissue(name).typical() for name in ("white_matter", "csf"))
    maps = torch.tensor([[getattr(white, m), getattr(fluid, m)] for m in MAPS]) @ share
    maps[3, 0] = 0.003  # seconds
    with_t2_star, without = (
        RandMRContrast(["t1w_mp2rage"], names, fractions=("white_matter", "csf"))
        .set_random_state(seed=0)(torch.cat([maps[: len(names)], share]))[0]
        .as_tensor()
        for names in (("pd", "t1", "t2", "t2_star"), ("pd", "t1"))
    )
    torch.testing.assert_close(with_t2_star[:2], without[:2])
    assert abs(float(with_t2_star[2] - without[2])) > 0.01


def test_a_fixed_protocol_is_played_as_it_is() -> None:
    protocol = SpinEcho(tr=0.5, te=0.01)
    image = RandMRContrast([protocol])(make_maps())
    assert protocol_from_dict(image.meta["mr_protocol"]) == protocol


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequences": ["t1w_mprag"]}, "family must be one of .* did you mean 't1w_mprage'"),
        ({"sequences": "flair"}, "sequences must be a list of names, got the text 'flair'"),
        ({"sequences": ["mtw_spgr"], "maps": ("pd", "t1", "t2_star")}, "maps are missing: {'mtw_spgr': .'mtsat'.}"),
        ({"sequences": ["flair"], "maps": ("pd", "t2_star")}, "maps are missing: {'flair': .'t1', 't2'.}"),
        ({"sequences": []}, "sequences must hold at least one .* got none; leave them out"),
        (
            {"maps": ("pd",)},
            "got none; add maps: t1 for t1w_mp2rage; t1 and t2_star for t1w_mprage, .*t1 and t2 for t1w",
        ),
        ({"maps": ("pd", "t1", "t2star")}, "maps must be of .*, got 't2star'; did you mean 't2_star'"),
        ({"maps": ("pd", "pd")}, "maps must not repeat a name"),
        ({"maps": ()}, "maps may be empty only where fractions name tissues"),
        ({"fractions": ("white_mater",)}, "fractions must be of .*, got 'white_mater'; did you mean 'white_matter'"),
        ({"field_strength": 9.4}, "field_strength must be 1.5 to 7 tesla, where the tables of tissues hold, got 9.4"),
        ({"field_strength": 0.55}, "field_strength must be 1.5 to 7 tesla, .* got 0.55"),
        ({"field_strength": math.nan}, "field_strength must be 1.5 to 7 tesla, .* got nan"),
        ({"maps": (), "fractions": ("csf",), "field_strength": 2.9}, "field_strength must be one of .* got 2.9; take"),
        ({"purity": 0.3}, "purity must be above 0.5"),
    ],
)
def test_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandMRContrast(**arguments)


@pytest.mark.parametrize(("field_strength", "name"), [(2.9, "csf"), (7.0, "muscle")])
def test_fractions_beside_maps_need_no_table(field_strength: float, name: str) -> None:
    transform = RandMRContrast(fractions=(name,), field_strength=field_strength).set_random_state(seed=0)
    assert transform(torch.cat([make_maps(), torch.full((1, *SHAPE), 0.5)])).shape == (1, *SHAPE)


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"img must be channel-first with the 5 channels .* got shape \(4, 6, 5, 4\)"):
        RandMRContrast()(make_maps()[:4])
    milliseconds = make_maps() * 1000
    with pytest.raises(ValueError, match=r"must be in seconds, got a median of \d+"):
        RandMRContrast(["t1w_se"])(milliseconds)
    per_cent = make_maps() * torch.tensor([1.0, 1, 1, 1, 100]).reshape(5, 1, 1, 1)
    per_cent[4] = per_cent[4].clamp(max=0.99)  # no voxel reaches 1, which the signal equation would refuse
    with pytest.raises(ValueError, match=r"mtsat must be a fraction, got a median of 0\.86\d*; divide p.u. by 100"):
        RandMRContrast(["mtw_spgr"])(per_cent)
    assert RandMRContrast(["t1w_se"])(per_cent).isfinite().all()  # does not look at it
    percent = torch.cat([make_maps(), torch.full((1, *SHAPE), 40.0)])
    with pytest.raises(ValueError, match="fractions must be between 0 and 1, got 40 to 40"):
        RandMRContrast(fractions=("csf",))(percent)


def test_dictionary_form_is_the_array_form_with_one_draw_for_all_keys() -> None:
    maps, other = make_maps(), make_maps(seed=1)
    expected = RandMRContrast().set_random_state(seed=6)(maps)
    out = RandMRContrastd(["a", "b"]).set_random_state(seed=6)({"a": maps, "b": other, "label": 3})
    assert torch.equal(out["a"], expected)
    assert out["a"].meta["mr_protocol"] == out["b"].meta["mr_protocol"]
    assert torch.equal(out["b"][0].as_tensor(), simulate(out["b"].meta["mr_protocol"], **named(other)))
    assert out["label"] == 3


def test_dictionary_aliases_and_missing_keys() -> None:
    assert RandMRContrastD is RandMRContrastd
    assert RandMRContrastDict is RandMRContrastd
    assert issubclass(RandMRContrastd, MapTransform)
    assert RandMRContrastd("a", allow_missing_keys=True)({"b": 1}) == {"b": 1}
    with pytest.raises(KeyError, match="a"):
        RandMRContrastd("a")({"b": 1})


def test_fractions_of_their_own_key_are_further_channels() -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    maps, share = MetaTensor(make_maps(), affine=affine), torch.rand(3, *SHAPE) / 3
    expected = RandMRContrast(fractions=TISSUES).set_random_state(seed=0)(torch.cat([make_maps(), share]))
    transform = RandMRContrastd("maps", fractions=TISSUES, fractions_key="share").set_random_state(seed=0)
    out = transform({"maps": maps, "share": share})["maps"]
    assert torch.equal(out.as_tensor(), expected.as_tensor())
    assert torch.equal(out.affine, affine)
    with pytest.raises(ValueError, match="must have one spatial shape"):
        transform({"maps": maps, "share": share[:, 1:]})
    with pytest.raises(ValueError, match="fractions must name the tissues under fractions_key 'share'"):
        RandMRContrastd("maps", fractions_key="share")


def test_two_contrasts_of_one_subject_in_a_chain() -> None:
    chain = Compose([CopyItemsd("a", names="b"), RandMRContrastd("a"), RandMRContrastd("b")]).set_random_state(seed=0)
    out = chain({"a": make_maps()})
    assert out["a"].meta["mr_protocol"] != out["b"].meta["mr_protocol"]


EVERYTHING = {
    f"{name}_prob": 1.0 for name in ("b1", "b0", "receive", "slice", "resolution", "gibbs", "motion", "ghost")
}


def block(shape: tuple[int, ...] = (24, 24, 24)) -> torch.Tensor:
    """White matter with a cube of fluid in it, air around."""
    maps = torch.zeros(5, *shape)
    for name, low in (("white_matter", 4), ("csf", 9)):
        values = torch.tensor([getattr(tissue(name).typical(), m) for m in MAPS])
        maps[:, low:-low, low:-low, low:-low] = values.reshape(5, 1, 1, 1)
    return maps


def test_no_artefact_is_drawn_by_default() -> None:
    assert RandMRContrast().randomize(SHAPE)["artefacts"] == {}


@pytest.mark.parametrize("name", ["t1w_mp2rage", "bssfp", "flair", "swi"])
@pytest.mark.parametrize("coils", [1, 3])
def test_all_artefacts_replay_exactly_by_way_of_json(name: str, coils: int) -> None:
    maps = make_maps(shape=(12, 10, 9))
    transform = RandMRContrast([name], coils=coils, noise_prob=1.0, **EVERYTHING).set_random_state(seed=0)
    image = transform(maps)
    record = json.loads(json.dumps(image.meta["mr_simulation"]))
    assert set(record["artefacts"]) == {n.removesuffix("_prob") for n in EVERYTHING} | {"noise"}
    assert torch.equal(transform.apply(maps, record), image)
    assert bool(image.isfinite().all())
    if name == "t1w_mp2rage":
        assert float(image.abs().max()) <= 0.5 + 1e-6


@pytest.mark.parametrize("name", ["b1", "receive", "slice", "resolution", "gibbs", "motion", "ghost", "noise"])
def test_each_artefact_changes_the_image_and_comes_as_often_as_asked(name: str) -> None:
    maps = block()
    clean = RandMRContrast([SpinEcho(tr=0.5, te=0.01)] if name != "b1" else ["t1w_spgr"]).set_random_state(seed=0)
    changed = RandMRContrast(clean.sequences, **{f"{name}_prob": 1.0}).set_random_state(seed=0)
    image = changed(maps)
    plain = clean.apply(maps, image.meta["mr_protocol"])
    assert float((image - plain).abs().max()) > 0.01 * float(plain.max())
    half = RandMRContrast(clean.sequences, **{f"{name}_prob": 0.5}).set_random_state(seed=0)
    assert 60 < sum(name in half.randomize((4, 4, 4))["artefacts"] for _ in range(200)) < 140


def test_a_drawn_transmit_field_scales_the_flip_angle_within_its_size() -> None:
    maps = make_maps(("pd", "t1", "t2", "t2_star", "mtsat"), (4, 4, 4))
    maps[:] = maps[:, 1:2, 1:2, 1:2]
    transform = RandMRContrast(["t1w_spgr"], b1_prob=1.0, b1=0.2).set_random_state(seed=0)
    image = transform(maps)[0]
    protocol = image.meta["mr_protocol"]
    weak, strong = (simulate(protocol, b1=b1, **named(maps[:, 0, 0, 0])) for b1 in (0.8, 1.2))
    ends = sorted((float(weak), float(strong)))
    assert ends[0] - 1e-5 <= float(image.min()) < float(image.max()) <= ends[1] + 1e-5


def test_an_offset_shifts_bands_of_balanced_ssfp_alone() -> None:
    maps = block()
    for name in ("bssfp", "swi", "t2w_fse"):
        image = RandMRContrast([name], b0_prob=1.0, b0=1.5).set_random_state(seed=0)(maps)
        plain = RandMRContrast([name]).apply(maps, image.meta["mr_protocol"])
        assert torch.equal(image, plain) == (name != "bssfp")


def test_receive_field_cancels_in_mp2rage() -> None:
    maps = block()
    image = RandMRContrast(["t1w_mp2rage"], receive_prob=1.0).set_random_state(seed=0)(maps)
    plain = RandMRContrast(["t1w_mp2rage"]).apply(maps, image.meta["mr_protocol"])
    torch.testing.assert_close(image.as_tensor(), plain.as_tensor(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("coils", [1, 4])
def test_noise_without_signal_is_rayleigh_or_chi(coils: int) -> None:
    maps = torch.zeros(5, 40, 40, 40)
    maps[:, :4] = make_maps(shape=(2,))[:, 1].reshape(5, 1, 1, 1)
    protocol = SpinEcho(tr=0.5, te=0.01)
    clean = RandMRContrast([protocol])(maps)
    image = RandMRContrast([protocol], noise_prob=1.0, noise=0.1, coils=coils).set_random_state(seed=0)(maps)
    sigma = 0.1 * float(clean[0, 0, 0, 0])
    background = image[0, 4:].as_tensor() / sigma
    # mean and second moment of a chi distribution with two degrees of freedom a coil
    mean = np.sqrt(2) * math.gamma(coils + 0.5) / math.gamma(coils)
    assert coils > 1 or mean == pytest.approx(np.sqrt(np.pi / 2))
    assert float(background.mean()) == pytest.approx(mean, rel=0.01)
    assert float(background.square().mean()) == pytest.approx(2 * coils, rel=0.01)
    signal = image[0, :4].as_tensor() / sigma
    assert float(signal.square().mean()) == pytest.approx(100 + 2 * coils, rel=0.01)


def test_thick_slices_average_and_keep_the_mean() -> None:
    maps = block()
    maps = MetaTensor(maps, affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64)))
    protocol = SpinEcho(tr=0.5, te=0.01)
    clean = RandMRContrast([protocol])(maps)[0].as_tensor()
    thick = RandMRContrast([protocol], slice_prob=1.0, slice_thickness=8.0).set_random_state(seed=0)(maps)
    axis = thick.meta["mr_simulation"]["artefacts"]["slice"]["axis"]
    volume = thick[0].as_tensor()
    means = clean.movedim(axis, 0).reshape(6, 4, 24, 24).mean(1)  # 8 mm are four voxels
    middle = volume.movedim(axis, 0).reshape(6, 4, 24, 24)[:, 1:3].mean(1)
    torch.testing.assert_close(middle[1:-1], (means * 0.875 + (means.roll(1, 0) + means.roll(-1, 0)) / 16)[1:-1])
    thin = RandMRContrast([protocol], slice_prob=1.0, slice_thickness=1.0)(maps)
    assert torch.equal(thin[0].as_tensor(), clean)


def test_a_cut_in_k_space_rings_and_a_filter_does_not() -> None:
    maps, protocol = block(), SpinEcho(tr=0.5, te=0.01)
    clean = RandMRContrast([protocol])(maps)
    rings = RandMRContrast([protocol], gibbs_prob=1.0, gibbs=0.5)(maps)
    coarse = RandMRContrast([protocol], resolution_prob=1.0, resolution=2.0)(maps)
    assert float(rings.max()) > 1.05 * float(clean.max())
    assert float(coarse.max()) < 1.03 * float(clean.max())


def test_a_ghost_lies_half_a_volume_away_with_its_share() -> None:
    maps, protocol = torch.zeros(5, 16, 16, 16), SpinEcho(tr=0.5, te=0.01)
    maps[:, 3, 3, 3] = make_maps(shape=(2,))[:, 1]
    image = RandMRContrast([protocol], ghost_prob=1.0, ghost=0.1).set_random_state(seed=0)(maps)
    axis = image.meta["mr_simulation"]["artefacts"]["ghost"]["axis"]
    there = [11 if a == axis else 3 for a in range(3)]
    assert float(image[(0, *there)] / image[0, 3, 3, 3]) == pytest.approx(0.1 / 0.9, rel=1e-3)


@pytest.mark.parametrize("length", [14, 15])
def test_a_ghost_is_the_image_shifted_by_half_of_any_length(length: int) -> None:
    image = torch.rand(length, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    record = {"ghost": {"axis": 0, "share": 0.1}}
    ghosted = degrade([image], record, [1.0, 1.0])[0][0]
    shift = torch.zeros(length, length, dtype=torch.float64)  # by length / 2, as a sum over the lines of k-space
    for k in range(-((length - 1) // 2), length // 2 + 1):
        for x in range(length):
            for y in range(length):
                shift[x, y] += math.cos(2 * math.pi * k * (x - y - length / 2) / length) / length
    torch.testing.assert_close(ghosted.real, 0.9 * image + 0.1 * shift @ image, atol=1e-6, rtol=0)
    assert float(ghosted.imag.abs().max()) < 1e-6


def test_the_subject_is_in_place_at_the_centre_of_k_space() -> None:
    maps, protocol = block(), SpinEcho(tr=0.5, te=0.01)
    for seed in range(4):
        moved = RandMRContrast([protocol], motion_prob=1.0, motion=2.0).set_random_state(seed=seed)(maps)
        clean = RandMRContrast([protocol])(maps)
        assert float((moved - clean).abs().mean()) > 0
        # the image stays where it is, whatever the shifts before and after the centre
        assert float(torch.corrcoef(torch.stack([moved.flatten(), clean.flatten()]).as_tensor())[0, 1]) > 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_prob": 1.2}, "noise_prob must be between 0 and 1, got 1.2"),
        ({"coils": 0}, "coils must be a whole number of at least 1, got 0"),
        ({"gibbs": (0.5, 1.5)}, "gibbs must be a number or a pair between 0.05 and 1, got"),
        ({"noise": "much"}, "noise must be a number or a pair between 0 and inf, got 'much'"),
    ],
)
def test_artefacts_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MRArtefacts(**arguments)


def test_a_record_of_another_dimension_is_refused() -> None:
    transform = RandMRContrast(["t1w_spgr"], b1_prob=1.0)
    with pytest.raises(ValueError, match="the record must be of 3 spatial axes"):
        transform.apply(make_maps(), transform.randomize((4, 4)))


def test_batch_is_its_items_one_by_one() -> None:
    rng = np.random.RandomState(0)
    drawn = [tissue(TISSUES[i % 3]).draw(rng) for i in range(3 * 64)]
    batch = torch.tensor([[getattr(t, m) for t in drawn] for m in MAPS]).reshape(5, 3, 4, 4, 4).movedim(1, 0)
    transform = RandMRContrast(noise_prob=0.5, gibbs_prob=0.5, b1_prob=0.5).set_random_state(seed=0)
    records = [transform.randomize((4, 4, 4)) for _ in batch]
    images = transform.apply_batch(batch, records)
    assert images.shape == (3, 1, 4, 4, 4)
    assert type(images) is torch.Tensor
    for image, maps, record in zip(images, batch, records, strict=True):
        assert torch.equal(image, transform.apply(maps, record).as_tensor())
    protocols = [record["protocol"] for record in records]
    plain = RandMRContrast().apply_batch(batch, protocols)
    assert torch.equal(plain[1], RandMRContrast().apply(batch[1], protocols[1]).as_tensor())
    maps = batch.clone().requires_grad_()
    RandMRContrast().apply_batch(maps, protocols).sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_batch_needs_a_record_an_item() -> None:
    with pytest.raises(ValueError, match=r"one record for each of the B items, got shape \(2, 5, 4, 4\) and 1 records"):
        RandMRContrast().apply_batch(torch.ones(2, 5, 4, 4), [SpinEcho(tr=1.0, te=0.1).to_dict()])
