"""Grad-CAM: equal to its equation, where the evidence is, and nothing changed by looking."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from bgpanet.catalogue import MODELS
from bgpanet.errors import InvalidInput
from bgpanet.explanation import cam
from bgpanet.explanation.cam import TARGETS, Target, grad_cam, target_of
from bgpanet.explanation.overlay import resized
from bgpanet.models import build_model
from bgpanet.models.zoo import BUILDERS, Built

MICRO = ["bgpanet_micro", "swin_micro", "swin_micro_se", "swin_micro_cbam"]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def images(count: int = 3, size: int = 64) -> Tensor:
    return torch.randn(count, 3, size, size)


def scaled(raw_BHW: np.ndarray) -> np.ndarray:  # noqa: N803
    positive = np.maximum(raw_BHW, 0)
    low, high = positive.min(axis=(1, 2), keepdims=True), positive.max(axis=(1, 2), keepdims=True)
    return np.asarray((positive - low) / (high - low + 1e-12))


class Reader(nn.Module):
    """Class 1 is the redness of the upper left quarter, class 0 the blueness of the lower right one."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([[0.0, 0, 1], [1, 0, 0]])[..., None, None])
            self.head.weight.copy_(torch.eye(2))

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        half = x.shape[-1] // 2
        blue, red = features[:, 0, half:, half:], features[:, 1, :half, :half]
        return self.head(torch.stack([blue.mean(dim=(1, 2)), red.mean(dim=(1, 2))], dim=1))  # type: ignore[no-any-return]


class Permuted(nn.Module):
    """A convolution and a perceptron, laid out as asked in between."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.shown = nn.Identity()
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        features = torch.tanh(self.stem(x))
        if self.channels_last:
            features = self.shown(features.permute(0, 2, 3, 1))
        else:
            features = self.shown(features).permute(0, 2, 3, 1)
        return self.head(torch.tanh(self.hidden(features)).mean(dim=(1, 2)))  # type: ignore[no-any-return]


def register(monkeypatch: pytest.MonkeyPatch, name: str, target: Target) -> None:
    monkeypatch.setitem(BUILDERS, name, Built(build=nn.Identity))
    monkeypatch.setitem(cam.TARGETS, name, target)


def test_a_map_points_to_the_region_on_which_alone_the_answer_depends(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "reader", Target("features", "channels_first"))
    lit = torch.zeros(1, 3, 32, 32)
    lit[:, 0, 2:6, 8:14] = 1
    lit[:, 2, 26:30, 18:28] = 1
    blue, red = grad_cam(Reader(), "reader", lit.expand(2, -1, -1, -1), [0, 1])
    assert red[2:6, 8:14].sum() == pytest.approx(red.sum())
    assert red[2:6, 8:14].min() == pytest.approx(1)
    assert blue[26:30, 18:28].sum() == pytest.approx(blue.sum())


def test_channels_last_and_channels_first_give_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "last", Target("shown", "channels_last"))
    register(monkeypatch, "first", Target("shown", "channels_first"))
    last, first = Permuted(channels_last=True), Permuted(channels_last=False)
    first.load_state_dict(last.state_dict())
    x = torch.randn(4, 3, 32, 48)
    found = grad_cam(last, "last", x)
    np.testing.assert_allclose(found, grad_cam(first, "first", x), atol=1e-6)
    assert found.std() > 0.05


@pytest.mark.parametrize("stage", [None, 3])
def test_a_map_equals_the_equation_worked_out_by_hand(stage: int | None) -> None:
    model = build_model("bgpanet_micro", 7).eval()
    x, classes = images(2), torch.tensor([3, 5])
    seen: list[Tensor] = []
    layer = model.get_submodule("norm" if stage is None else "bgpa.2")
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = model(x)
    hook.remove()
    (slope,) = torch.autograd.grad(logits[torch.arange(2), classes].sum(), seen)
    weights = slope.mean(dim=(1, 2), keepdim=True)
    raw = F.relu((weights * seen[0]).sum(dim=-1)).detach()
    side = raw.shape[-1]
    assert side == (2 if stage is None else 4)
    raw = raw - raw.amin(dim=(1, 2), keepdim=True)
    enlarged = F.interpolate(raw[:, None], size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(
        grad_cam(model, "bgpanet_micro", x, classes.tolist(), stage), scaled(enlarged.numpy()), atol=1e-5
    )


def test_tokens_are_put_back_where_their_patches_were(monkeypatch: pytest.MonkeyPatch) -> None:
    model = VisionTransformer(64, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4).eval()
    nn.init.normal_(model.heads.head.weight)  # it starts at 0, and then nothing speaks for any class
    target = Target("encoder.layers.encoder_layer_1.ln_1", "tokens")
    monkeypatch.setitem(BUILDERS, "vit", Built(build=nn.Identity, head="heads.head"))
    monkeypatch.setitem(cam.TARGETS, "vit", target)
    x, seen = images(1), list[Tensor]()
    hook = model.get_submodule(target.layer).register_forward_hook(lambda module, inputs, output: seen.append(output))
    logit = model(x)[0, 1]
    hook.remove()
    (slope,) = torch.autograd.grad(logit, seen)
    weights = slope[0, 1:].mean(dim=0)
    raw = torch.zeros(4, 4)
    for row in range(4):
        for column in range(4):
            raw[row, column] = F.relu(weights @ seen[0][0, 1 + 4 * row + column]).detach()
    raw = raw - raw.min()
    expected = F.interpolate(raw[None, None], size=(64, 64), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(grad_cam(model, "vit", x, [1]), scaled(expected.numpy()), atol=1e-5)


@pytest.mark.parametrize("name", MICRO)
def test_images_of_a_batch_do_not_see_each_other(name: str) -> None:
    model, x = build_model(name, 7), images(3)
    together = grad_cam(model, name, x)
    alone = np.concatenate([grad_cam(model, name, one[None]) for one in x])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_without_classes_the_predicted_ones_are_explained_and_another_class_has_another_map() -> None:
    model, x = build_model("bgpanet_micro", 7).eval(), images(3)
    predicted = model(x).argmax(dim=1).tolist()
    found = grad_cam(model, "bgpanet_micro", x)
    np.testing.assert_array_equal(found, grad_cam(model, "bgpanet_micro", x, predicted))
    others = grad_cam(model, "bgpanet_micro", x, [(k + 1) % 7 for k in predicted])
    assert np.abs(found - others).max(axis=(1, 2)).min() > 0.1


def test_the_model_is_left_as_it_was_found_and_the_callers_context_changes_nothing() -> None:
    model, x = build_model("bgpanet_micro", 7), images(2)
    expected = grad_cam(model, "bgpanet_micro", x)
    model.train()
    model.features[0].eval()  # type: ignore[index, union-attr]
    model.head.weight.requires_grad_(False)  # type: ignore[union-attr]
    F.cross_entropy(model(x), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = {key: None if p.grad is None else p.grad.clone() for key, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(grad_cam(model, "bgpanet_micro", x.clone()), expected)
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.modules())
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad is (key != "head.weight")
        before = gradients[key]
        assert (before is None) is (parameter.grad is None)
        assert before is None or torch.equal(before, parameter.grad)  # type: ignore[arg-type]
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_every_model_of_the_catalogue_has_a_target() -> None:
    assert sorted(TARGETS) == sorted(MODELS)


# The plain convolutional nets of which one answer costs little; the others are looked at without computing.
@pytest.mark.parametrize("name", [*MICRO, "mobilenet_v3_small", "mobilenet_v2", "densenet121"])
def test_a_map_has_the_size_of_the_image_and_says_something(name: str) -> None:
    found = grad_cam(build_model(name, 7), name, images(1, 96))
    assert found.shape == (1, 96, 96)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert 0.99 < found.max() <= 1
    assert found.std() > 0.05


# Swins of all sizes share their target.
@pytest.mark.parametrize("name", [*MICRO, *(name for name in MODELS if not name.startswith(("bgpanet", "swin_")))])
def test_the_target_of_every_model_has_positions_and_reaches_the_answer(name: str) -> None:
    target, shapes = TARGETS[name], []

    def seen(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        shapes.append(cam.RESHAPES[target.layout](output).shape)
        return output.detach().requires_grad_().clone()

    size = MODELS[name].image_size
    with torch.device("meta"):
        model = build_model(name, 7).eval().requires_grad_(False)
        model.get_submodule(target.layer).register_forward_hook(seen)
        answer = model(torch.empty(1, 3, size, size))
    ((_, channels, height, width),) = shapes
    assert (height, width) == {"vgg16": (14, 14), "vit_b_16": (14, 14)}.get(name, (size // 32, size // 32))
    assert channels > height
    assert answer.requires_grad


@pytest.mark.parametrize(("name", "placement"), [*((name, "") for name in MICRO), ("bgpanet_micro", "block")])
def test_every_stage_of_a_swin_can_be_explained(name: str, placement: str) -> None:
    model, x = build_model(name, 7, **({"placement": placement} if placement else {})), images(1)
    maps = [grad_cam(model, name, x, [2], stage)[0] for stage in (1, 2, 3, 4)]
    assert all(found.std() > 0.05 for found in maps)
    for number, side in enumerate((16, 8, 4)):
        # No finer than the stage's own positions: what lies between them is linear.
        small = maps[number].reshape(side, 64 // side, side, 64 // side).mean(axis=(1, 3))
        assert np.corrcoef(resized(small, 64, 64).ravel(), maps[number].ravel())[0, 1] > 0.9
    assert target_of(model, name, 4).layer.startswith(("bgpa", "attention", "features.7"))


def test_classes_and_stages_that_there_are_not_are_refused() -> None:
    model, x = build_model("swin_micro", 7), images(2)
    for classes in ([0, 7], [0, -1], [0]):
        with pytest.raises(InvalidInput, match="2 class numbers from 0 to 6"):
            grad_cam(model, "swin_micro", x, classes)
    with pytest.raises(InvalidInput, match="has no stage 5"):
        target_of(model, "swin_micro", 5)
    with pytest.raises(InvalidInput, match="vgg16 has no stage 1"):
        target_of(nn.Identity(), "vgg16", 1)
