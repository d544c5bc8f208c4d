"""Channels replaced by templates, and the copies that are tied to each other."""

from collections import Counter

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from monai_cl.engine import TiedCopies, fine_tuning
from monai_cl.transforms import (
    RandChannelTemplateMixD,
    RandChannelTemplateMixd,
    RandChannelTemplateMixDict,
)

NAMES = ["a", "b", "c", "d"]
TEMPLATES = {name: torch.full((6, 6, 6), -1.0 - number) for number, name in enumerate(NAMES[:3])}


def image() -> Tensor:
    return torch.arange(1.0, 5.0)[:, None, None, None].expand(4, 4, 4, 4).clone()


def mix(**options: object) -> RandChannelTemplateMixd:
    return RandChannelTemplateMixd("image", NAMES, TEMPLATES, **options)  # type: ignore[arg-type]


def test_each_channel_of_each_copy_is_its_own_or_its_template() -> None:
    lost: Counter[int] = Counter()
    for seed in range(300):
        found = mix().set_random_state(seed=seed)({"image": image()})["image"]
        assert found.shape == (8, 4, 4, 4)
        for copy in found.chunk(2):
            replaced = 0
            for number, channel in enumerate(copy):
                template = -1.0 - number if number < 3 else 0.0  # d has none
                assert float(channel.mean()) in (number + 1.0, template)
                replaced += float(channel.mean()) != number + 1.0
            lost[replaced] += 1
    assert set(lost) == {0, 1, 2, 3}
    assert all(110 < lost[count] < 190 for count in range(4))  # each of the four as often


def test_copies_draw_apart_and_a_seed_repeats_them() -> None:
    found = [mix().set_random_state(seed=seed)({"image": image()})["image"] for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert any(
        not torch.equal(*mix().set_random_state(seed=seed)({"image": image()})["image"].chunk(2)) for seed in range(5)
    )


def test_one_measured_channel_stays_and_those_that_were_not_do_not_count() -> None:
    for seed in range(40):
        item = {"image": image(), "present": torch.tensor([False, True, False, True])}
        found = mix(max_channels=9, copies=1).set_random_state(seed=seed)(item)["image"]
        assert float(found[1].mean()) == 2.0 or float(found[3].mean()) == 4.0
        assert float(found[0].mean()) == 1.0  # filled already
    single = RandChannelTemplateMixd("image", ["a"], TEMPLATES)
    assert torch.equal(single({"image": image()[:1]})["image"], image()[[0, 0]])


def test_the_contract_of_the_mix() -> None:
    assert RandChannelTemplateMixD is RandChannelTemplateMixDict is RandChannelTemplateMixd
    assert issubclass(RandChannelTemplateMixd, MapTransform)
    assert issubclass(RandChannelTemplateMixd, Randomizable)
    volume = MetaTensor(image(), affine=2 * torch.eye(4))
    found = mix().set_random_state(seed=0)({"image": volume})["image"]
    assert torch.equal(found.affine, volume.affine)
    plain = mix().set_random_state(seed=0)({"image": image()})["image"]
    assert torch.equal(found.as_tensor(), plain)
    assert torch.equal(volume.as_tensor(), image())
    assert RandChannelTemplateMixd("image", NAMES, {}, allow_missing_keys=True)({"a": 1}) == {"a": 1}
    with pytest.raises(ValueError, match=r"must have the 4 channels \['a', 'b', 'c', 'd'\], got 3"):
        mix()({"image": image()[:3]})
    with pytest.raises(ValueError, match="max_channels must be at least 0 and copies at least 1, got -1 and 2"):
        mix(max_channels=-1)


# --- tied copies


def network(channels: int = 2) -> UNet:
    torch.manual_seed(0)
    return UNet(3, channels, 2, channels=(2, 4), strides=(2,))


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(3, 4, 8, 8, 8, generator=generator),
        "label": torch.randint(0, 2, (3, 1, 8, 8, 8), generator=generator),
    }


def test_copies_are_parted_and_the_tie_is_that_of_the_features_written_out() -> None:
    tied, net, given = TiedCopies(weight=0.1), network(), batch()
    images, labels = tied.prepare_batch(given)
    assert torch.equal(images, torch.cat([given["image"][:, :2], given["image"][:, 2:]]))
    assert torch.equal(labels[:3], labels[3:])
    plain = DiceCELoss(to_onehot_y=True, softmax=True)
    seen: list[Tensor] = []
    handle = net.model[-1].register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    expected = plain(net(images), labels)
    handle.remove()
    expected = expected + 0.1 * (seen[0][:3] - seen[0][3:]).square().mean()
    loss = tied.loss(plain)
    found = loss(tied(images, net), labels)
    torch.testing.assert_close(found, expected)
    assert all(
        torch.allclose(a, b)
        for a, b in zip(
            torch.autograd.grad(found, list(net.parameters())), torch.autograd.grad(expected, list(net.parameters())),
            strict=True,
        )
    )  # fmt: skip
    torch.testing.assert_close(loss(net(images), labels), plain(net(images), labels))  # a tie counts once


def test_alike_copies_have_no_tie_and_one_copy_changes_nothing() -> None:
    tied, net = TiedCopies(), network()
    alike = torch.rand(2, 2, 8, 8, 8).repeat(2, 1, 1, 1, 1)
    tied(alike, net)
    tie = tied.take_tie()
    assert tie is not None
    assert float(tie.detach()) == 0
    one, given = TiedCopies(copies=1), batch()
    assert torch.equal(one.prepare_batch(given)[0], given["image"])
    one(given["image"][:, :2], net)
    assert one.take_tie() is None


def test_a_trainer_takes_copies_apart_by_its_inferer() -> None:
    net = network()
    before = [p.clone() for p in net.parameters()]
    trainer = fine_tuning(
        net, [batch()], max_epochs=1, epoch_length=1, loss=DiceCELoss(to_onehot_y=True, softmax=True),
        inferer=TiedCopies(), precision="fp32",
    )  # fmt: skip
    trainer.run()
    assert trainer.state.output[0]["pred"].shape[0] == 2
    assert len(trainer.state.output) == 6
    assert not all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_options_of_tied_copies_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="copies must be 1 or 2, got 3"):
        TiedCopies(3)
    with pytest.raises(ValueError, match="weight must be at least 0, got -1"):
        TiedCopies(weight=-1)
    with pytest.raises(ValueError, match="channels 2 times, got 3 channels; mix them with RandChannelTemplateMixd"):
        TiedCopies().prepare_batch({"image": torch.zeros(1, 3, 4, 4, 4), "label": torch.zeros(1, 1, 4, 4, 4)})
