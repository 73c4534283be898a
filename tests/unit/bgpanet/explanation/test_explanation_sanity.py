"""Weight randomisation: maps that follow the weights change, maps that follow the image alone are found out."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bgpanet.explanation.attention import views
from bgpanet.explanation.cam import grad_cam
from bgpanet.explanation.sanity import parts_of, rank_correlations, weight_randomisation
from bgpanet.models import build_model
from bgpanet.models.zoo import BUILDERS

IMAGES = 12


@pytest.fixture
def nets() -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    coarse = torch.randn(IMAGES, 3, 8, 8)
    images = nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")
    return build_model("bgpanet_micro", 7), build_model("bgpanet_micro", 7), images


def cams(model: nn.Module, images: Tensor) -> np.ndarray:
    return grad_cam(model, "bgpanet_micro", images, [2] * len(images), stage=3)


def mean_of(correlations: list[float | None]) -> float:
    return float(np.mean([value for value in correlations if value is not None]))


@pytest.mark.parametrize("part", parts_of("bgpanet_micro"))
def test_grad_cam_changes_when_weights_become_random(part: str, nets: tuple[nn.Module, nn.Module, Tensor]) -> None:
    model, fresh, images = nets
    beginnings = parts_of("bgpanet_micro")[part]
    found = weight_randomisation(model, fresh, beginnings, lambda net: cams(net, images))
    assert len(found) == IMAGES
    assert abs(mean_of(found)) < 0.5


def test_the_blocks_spatial_map_changes_when_weights_become_random(nets: tuple[nn.Module, nn.Module, Tensor]) -> None:
    model, fresh, images = nets

    def spatial(net: nn.Module) -> np.ndarray:
        found = views(net, images)[0].spatial
        assert found is not None
        return found

    changed = weight_randomisation(model, fresh, ("",), spatial)
    kept = weight_randomisation(model, fresh, ("head",), spatial)
    assert abs(mean_of(changed)) < 0.7
    assert kept == pytest.approx([1.0] * IMAGES)  # it stands below the classifier


def test_a_map_that_knows_the_image_alone_does_not_change(nets: tuple[nn.Module, nn.Module, Tensor]) -> None:
    """What the measurement is there to find: an edge detector that passes for an explanation."""
    model, fresh, images = nets
    edges = (images[:, :, 1:, 1:] - images[:, :, :-1, :-1]).abs().sum(dim=1).numpy()
    assert weight_randomisation(model, fresh, ("",), lambda net: edges) == pytest.approx([1.0] * IMAGES)


def test_the_model_is_put_back_also_after_an_error(nets: tuple[nn.Module, nn.Module, Tensor]) -> None:
    model, fresh, images = nets
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weight_randomisation(model, fresh, ("",), lambda net: cams(net, images))
    calls = []

    def broken(net: nn.Module) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("broken")
        return images[:, 0].numpy()

    with pytest.raises(RuntimeError, match="broken"):
        weight_randomisation(model, fresh, ("",), broken)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_rank_correlations_are_one_for_the_same_order_minus_one_for_the_opposite_and_none_for_flat_maps() -> None:
    first = np.random.default_rng(0).random((3, 32, 32))
    second = np.stack([first[0] ** 3, -first[1], np.ones((32, 32))])
    found = rank_correlations(first, second)
    assert found[:2] == pytest.approx([1.0, -1.0])
    assert found[2] is None


def test_every_part_names_weights_that_the_model_has() -> None:
    for name in ("bgpanet_micro", "swin_micro_se", "swin_micro", "mobilenet_v3_small"):
        weights = list(build_model(name, 7).state_dict())
        counts = [sum(w.startswith(begin) for w in weights) for begin in parts_of(name).values()]
        assert 0 < counts[0] < counts[-1] == len(weights)
        assert counts == sorted(counts)
        assert len(counts) == (3 if BUILDERS[name].new else 2)
