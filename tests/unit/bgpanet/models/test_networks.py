"""BGPANet, the backbones and `build_model`."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

from bgpanet.catalogue import MODELS, WEIGHTS_URL
from bgpanet.errors import InvalidInput
from bgpanet.models import BGPANet, build_model
from bgpanet.models.controls import ConvolutionalBlockAttention, SqueezeExcitation
from bgpanet.models.swin import BACKBONES
from bgpanet.models.weights import file_digest
from bgpanet.models.zoo import BUILDERS

# Placement, embedding ratio: millions of parameters, GMAC of all products, GMAC without those of attention weights.
COSTS = {
    ("swin_b", None, None): (86.750, 15.430, 15.125),
    ("bgpanet", "stage", 1.0): (88.320, 15.662, 15.331),
    ("bgpanet", "stage", 0.25): (87.275, 15.498, 15.177),
    ("bgpanet", "block", 1.0): (94.618, 16.783, 16.360),
    ("bgpanet", "block", 0.25): (89.383, 15.814, 15.435),
    ("bgpanet", "block", 0.125): (88.511, 15.653, 15.281),
}


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def micro(**options: Any) -> BGPANet:
    return BGPANet(7, size="micro", **options)


@pytest.mark.parametrize("variant", COSTS, ids=str)
def test_parameters_and_products_are_those_of_the_table_at_224(variant: tuple[str, str | None, float | None]) -> None:
    name, placement, ratio = variant
    options: dict[str, Any] = {} if placement is None else {"placement": placement, "embedding_ratio": ratio}
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = build_model(name, 7, **options).eval()
        model(torch.empty(1, 3, 224, 224))
    products = counter.get_flop_counts()["Global"]
    total = sum(products.values()) / 2e9
    attention = sum(count for operator, count in products.items() if "bmm" in str(operator)) / 2e9
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert (parameters, total, total - attention) == pytest.approx(COSTS[variant], rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_catalogue_is_what_the_catalogue_says(name: str) -> None:
    entry = MODELS[name]
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = build_model(name, 7).eval()
        assert model(torch.empty(1, 3, entry.image_size, entry.image_size)).shape == (1, 7)
    products = sum(counter.get_flop_counts()["Global"].values()) / 2e9
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(entry.parameters, abs=0.001)
    assert products == pytest.approx(entry.gmac, abs=0.001)
    assert BUILDERS[name].options == entry.options
    weights = BUILDERS[name].weights
    assert (None if weights is None else weights.url) == (entry.imagenet and WEIGHTS_URL + entry.imagenet)
    assert entry.batch_norm is any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert f"{BUILDERS[name].head}.weight" in model.state_dict()


def test_catalogue_and_builders_have_the_same_models() -> None:
    assert list(MODELS) == list(BUILDERS)


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.imagenet])
def test_imagenet_weights_fit_with_the_right_head(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file of the shapes that torchvision downloads: 1000 classes, and nothing of what the block adds."""
    built = BUILDERS[name]
    with torch.device("meta"):
        published = {
            key: torch.empty(value.shape)
            for key, value in get_model(built.weights.__class__.__name__.removesuffix("_Weights").lower())
            .state_dict()
            .items()
        }
        monkeypatch.setattr(type(built.weights), "get_state_dict", lambda self, **options: published)
        build_model(name, 7, "imagenet")


@pytest.mark.parametrize("name", ["swin_micro_se", "swin_micro_cbam"])
def test_controls_change_the_net_where_the_block_would(name: str) -> None:
    model = build_model(name, 7)
    loss: torch.Tensor = nn.functional.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 3]))
    loss.backward()  # type: ignore[no-untyped-call]
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


def test_squeeze_excitation_and_cbam_are_their_equations() -> None:
    x = torch.randn(2, 5, 6, 32)
    se: Any = SqueezeExcitation(32)
    gate = torch.sigmoid(se.fc2(se.fc1(x.mean((1, 2))).relu()))
    torch.testing.assert_close(se(x), x * gate[:, None, None])
    cbam: Any = ConvolutionalBlockAttention(32)
    channel = torch.sigmoid(cbam.mlp(x.mean((1, 2))) + cbam.mlp(x.amax((1, 2))))[:, None, None] * x
    spatial = torch.sigmoid(cbam.conv(torch.stack([channel.mean(3), channel.amax(3)], 1)))[:, 0, :, :, None]
    torch.testing.assert_close(cbam(x), channel * spatial)


def test_a_model_of_the_tables_that_can_not_be_built_says_why() -> None:
    with pytest.raises(InvalidInput, match="hornet_b is not available: neither torchvision"):
        build_model("hornet_b", 7)


def test_weights_of_another_digest_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(build_model("bgpanet_micro", 7).state_dict(), path)
    build_model("bgpanet_micro", 7, str(path), file_digest(path))
    with pytest.raises(InvalidInput, match="it is not loaded"):
        build_model("bgpanet_micro", 7, str(path), "0" * 64)


@pytest.mark.parametrize("placement", ["stage", "block"])
def test_every_parameter_gets_a_gradient(placement: str) -> None:
    model = micro(placement=placement)
    loss: torch.Tensor = nn.functional.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 3]))
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_stage_block_follows_each_stage_and_a_block_each_swin_block() -> None:
    assert len(micro().bgpa) == 4
    depths = [len(BACKBONES["micro"].build(num_classes=2).features[stage]) for stage in (1, 3, 5, 7)]
    assert [len(blocks) for blocks in micro(placement="block").bgpa] == depths  # type: ignore[arg-type]


def test_24_blocks_in_a_row_keep_the_norms_of_output_and_gradient() -> None:
    """Unwrapped, eighteen blocks damp their input to about 1e-9; wrapped, features and gradients stay alive."""
    torch.set_num_threads(2)
    model = BGPANet(7, size="base", placement="block")
    plain = build_model("swin_b", 7)
    plain.load_state_dict({name: v for name, v in model.state_dict().items() if not name.startswith("bgpa.")})
    norms: dict[str, float] = {}
    for name, net in (("bgpa", model.eval()), ("swin", plain.eval())):
        seen: list[torch.Tensor] = []
        net.norm.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))  # type: ignore[union-attr]
        net(torch.randn(1, 3, 64, 64)).square().sum().backward()
        first: Any = net.features[0][0].weight.grad  # type: ignore[index,union-attr]
        norms[f"{name} output"], norms[f"{name} gradient"] = seen[0].norm().item(), first.norm().item()
    assert 0.05 < norms["bgpa output"] / norms["swin output"] < 20
    assert 0.01 < norms["bgpa gradient"] / norms["swin gradient"] < 100


def test_images_of_a_batch_do_not_see_each_other() -> None:
    model = micro().double().eval()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=0, atol=1e-12)


def test_a_batch_that_can_be_learned_is_learned() -> None:
    model, images, labels = micro(), torch.randn(8, 3, 64, 64), torch.arange(8) % 7
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss.detach()) < 0.2


def test_what_the_blocks_look_at_can_be_seen() -> None:
    model = micro().eval()
    maps: list[Any] = model.attention_maps(torch.randn(2, 3, 64, 64))
    assert [tuple(block.spatial.shape) for block in maps] == [(2, 16, 16), (2, 8, 8), (2, 4, 4), (2, 2, 2)]


# ── build_model ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_model_is_answered_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"did you mean 'bgpanet_micro'.*swin_b"):
        build_model("bgpanet_mico", 7)


def test_an_option_of_another_model_is_refused() -> None:
    with pytest.raises(InvalidInput, match="placement: is no option of swin_micro"):
        build_model("swin_micro", 7, placement="stage")


@pytest.mark.parametrize("options", [{"num_classes": 1}, {"placement": "everywhere"}, {"size": "huge"}])
def test_a_net_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        BGPANet(**{"num_classes": 7, "size": "micro", **options})


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_a_local_file_are_loaded_but_for_a_head_of_other_classes(tmp_path: Path, suffix: str) -> None:
    source = build_model("bgpanet_micro", 5)
    path = tmp_path / f"weights{suffix}"
    save_file(source.state_dict(), path) if suffix == ".safetensors" else torch.save(source.state_dict(), path)
    same, other = build_model("bgpanet_micro", 5, str(path)), build_model("bgpanet_micro", 7, str(path))
    for name, value in source.state_dict().items():
        assert torch.equal(same.state_dict()[name], value)
        if not name.startswith("head."):
            assert torch.equal(other.state_dict()[name], value)


def test_all_mismatches_of_weights_are_told_together(tmp_path: Path) -> None:
    state = build_model("bgpanet_micro", 7).state_dict()
    del state["norm.weight"]
    state["extra"] = torch.zeros(1)
    state["norm.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InvalidInput) as caught:
        build_model("bgpanet_micro", 7, str(tmp_path / "w.safetensors"))
    text = str(caught.value)
    assert "lacks norm.weight" in text
    assert "has extra" in text
    assert "norm.bias has the shape (3,)" in text


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil-was-here"),)


@pytest.mark.parametrize("kind", ["pickle", "torch", "text", "missing", "list"])
def test_a_file_that_holds_no_tensors_is_refused_and_never_run(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "torch":
        torch.save({"a": Evil()}, path)
    elif kind == "list":
        torch.save([torch.zeros(1)], path)
    elif kind == "text":
        path.write_text("hello")
    with pytest.raises(InvalidInput):
        build_model("bgpanet_micro", 7, str(path))
    assert not (tmp_path / "evil-was-here").exists()


def test_imagenet_weights_fill_the_backbone_and_leave_the_blocks_new(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build_model("swin_t", 1000).state_dict()
    weights: Any = BACKBONES["tiny"].weights
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **options: backbone)
    loaded = build_model("bgpanet_t", 7, "imagenet").state_dict()
    assert torch.equal(loaded["features.3.1.attn.qkv.weight"], backbone["features.3.1.attn.qkv.weight"])
    assert loaded["head.weight"].shape == (7, 768)
    assert loaded["bgpa.0.mix_logits"].tolist() == [0, 0, 0]


def test_without_a_network_imagenet_weights_are_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InvalidInput, match="local file"):
        build_model("bgpanet_t", 7, "imagenet")


def test_a_model_without_imagenet_weights_says_so() -> None:
    with pytest.raises(InvalidInput, match="no ImageNet weights"):
        build_model("bgpanet_micro", 7, "imagenet")
