import pytest
import torch
from monai.networks.nets import BasicUNet, SegResNet
from torch import nn

from monai_cl.engine import adamw
from monai_cl.methods import MaskedReconstruction
from monai_cl.methods.masked_reconstruction import block_mask


@pytest.mark.parametrize("size", [(8, 12), (16, 8, 8), (9, 10, 7)])
def test_each_image_hides_the_same_number_of_whole_blocks(size: tuple[int, ...]) -> None:
    mask = block_mask(torch.zeros(3, 2, *size), ratio=0.5, block_size=4)
    assert mask.shape == (3, 1, *size)
    grid = [-(-s // 4) for s in size]
    corners = mask[(slice(None), 0, *[slice(0, None, 4)] * len(size))]
    assert corners.flatten(1).sum(1).tolist() == [round(0.5 * torch.tensor(grid).prod().item())] * 3
    for axis, s in enumerate(size):  # constant within every block
        first = torch.arange(s) // 4 * 4
        assert torch.equal(mask.index_select(axis + 2, first), mask)


def test_images_hide_different_blocks_and_the_seed_repeats_them() -> None:
    draw = lambda: block_mask(torch.zeros(4, 1, 16, 16), ratio=0.5, block_size=4)  # noqa: E731
    torch.manual_seed(0)
    first = draw()
    assert len({tuple(m.flatten().tolist()) for m in first}) > 1
    torch.manual_seed(0)
    assert torch.equal(first, draw())


def test_the_loss_is_the_error_where_it_was_hidden() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, 1, 1, bias=False)
            nn.init.ones_(self.conv.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.conv(x)
            return out

    method = MaskedReconstruction(Same())
    nn.init.ones_(method.terms["reconstruction"].head.weight)
    nn.init.zeros_(method.terms["reconstruction"].head.bias)  # type: ignore[arg-type]
    losses = method({"image": torch.full((2, 1, 8, 8, 8), 3.0)})
    assert losses["loss"].item() == pytest.approx(9.0)  # zeros in place of threes
    assert losses["visible"].item() == 0.0


def test_the_whole_network_learns_and_the_loss_falls() -> None:
    torch.manual_seed(0)
    method = MaskedReconstruction(SegResNet(out_channels=3, blocks_down=(1, 1), blocks_up=(1,)))
    optimizer = adamw(method, 1e-2)
    ramp = torch.linspace(0, 1, 16).expand(2, 1, 16, 16, 16)
    values = []
    for _ in range(40):
        loss = method({"image": ramp})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-5:]) < 0.3 * sum(values[:5])
    assert set(method.touched()) == {name for name, _ in method.network.named_parameters()}


def test_several_input_channels_are_all_restored() -> None:
    network = BasicUNet(in_channels=2, out_channels=4, features=(4, 4, 4, 4, 4, 4))
    method = MaskedReconstruction(network)
    assert method.terms["reconstruction"].head.out_channels == 2
    assert method({"image": torch.rand(1, 2, 32, 32, 32)})["loss"].isfinite()


@pytest.mark.parametrize(
    ("options", "message"), [({"mask_ratio": 1.0}, "mask_ratio"), ({"block_size": 0}, "block_size")]
)
def test_settings_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedReconstruction(SegResNet(), **options)
    with pytest.raises(ValueError, match="has no convolution"):
        MaskedReconstruction(nn.Linear(1, 1))


def test_the_head_follows_the_output_channels_of_every_network(five_channel_network: nn.Module) -> None:
    assert MaskedReconstruction(five_channel_network).terms["reconstruction"].head.in_channels == 5


def test_views_are_crops_each() -> None:
    method = MaskedReconstruction(SegResNet(init_filters=8), block_size=4)
    images = torch.rand(4, 1, 16, 16, 16)
    torch.manual_seed(0)  # of the blocks
    crops = method({"image": images})["loss"]
    torch.manual_seed(0)
    views = method({"image": images.unflatten(0, (2, 2))})["loss"]
    torch.manual_seed(0)
    beside = method({"image": {"views": images.unflatten(0, (2, 2))}})["loss"]
    assert crops.item() == views.item() == beside.item()
