"""ImageNet weights as files of torchvision's own kind: found, downloaded, checked by the digest in their name."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torchvision.models import Weights, WeightsEnum, get_model

from bgpanet.errors import InvalidInput
from bgpanet.models import build_model, zoo
from bgpanet.models.weights import file_digest
from bgpanet.models.zoo import BUILDERS, check_weights
from bgpanet.specs import ModelSpec

NAME = "mobilenet_v3_small"  # the smallest


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision publishes them: a network's state for 1000 classes, the digest's begin in the name."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("published") / "file.pth"
    torch.save(get_model(NAME, weights=None).state_dict(), path)
    return path.rename(path.with_name(f"{NAME}-{file_digest(path)[:8]}.pth"))


def weights_at(path: Path) -> Any:
    """Weights as torchvision names them, downloaded from a file of this machine."""

    class Local(WeightsEnum):  # type: ignore[misc]
        DEFAULT = Weights(url=path.as_uri(), transforms=lambda: None, meta={})

    return Local.DEFAULT


@pytest.fixture
def cache(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's own, empty cache; the model's weights are at the address of `published`, and nowhere else."""
    monkeypatch.setitem(BUILDERS, NAME, replace(BUILDERS[NAME], weights=weights_at(published)))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", refuse)


def is_loaded(published: Path) -> None:
    state = torch.load(published, weights_only=True)
    loaded = build_model(NAME, 7, "imagenet").state_dict()
    assert loaded["classifier.3.weight"].shape == (7, 1024)
    for key, value in state.items():
        if not key.startswith("classifier.3."):
            assert torch.equal(loaded[key], value), key


def test_a_file_in_torchs_cache_is_loaded_without_a_network(
    published: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    shutil.copy(published, cache)
    check_weights([ModelSpec(name=NAME, weights="imagenet")])
    is_loaded(published)


def test_a_file_that_is_not_there_is_downloaded_and_stays(published: Path, cache: Path) -> None:
    is_loaded(published)
    assert file_digest(cache / published.name) == file_digest(published)


def test_a_download_that_is_not_what_its_name_says_is_refused_and_does_not_stay(
    published: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / f"{NAME}-00000000.pth"
    shutil.copy(published, other)

    monkeypatch.setitem(BUILDERS, NAME, replace(BUILDERS[NAME], weights=weights_at(other)))
    with pytest.raises(InvalidInput, match="invalid hash value"):
        build_model(NAME, 7, "imagenet")
    assert list(cache.iterdir()) == []


def test_a_file_in_the_cache_that_was_cut_off_is_refused_with_what_to_do(published: Path, cache: Path) -> None:
    (cache / published.name).write_bytes(published.read_bytes()[:-1000])
    with pytest.raises(InvalidInput, match="delete or replace it"):
        build_model(NAME, 7, "imagenet")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil-was-here"),)


def test_nothing_in_a_file_of_the_cache_is_run(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not where its name fits: eight digits of a digest are soon found."""
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, cache / "evil.pth")
    evil = cache / f"{NAME}-{file_digest(cache / 'evil.pth')[:8]}.pth"
    (cache / "evil.pth").rename(evil)

    monkeypatch.setitem(BUILDERS, NAME, replace(BUILDERS[NAME], weights=weights_at(evil)))
    with pytest.raises(InvalidInput):
        build_model(NAME, 7, "imagenet")
    assert not Path("evil-was-here").exists()


def test_what_is_missing_offline_is_told_with_name_and_folder(
    published: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    with pytest.raises(InvalidInput) as caught:
        check_weights([ModelSpec(), ModelSpec(name=NAME, weights="imagenet")])
    assert str(cache / published.name) in str(caught.value)
    assert published.as_uri() in str(caught.value)


def test_a_local_file_that_does_not_fit_is_told_without_building_the_network(published: Path) -> None:
    with pytest.raises(InvalidInput, match=r"lacks features\.0\.weight"):
        check_weights([ModelSpec(name="vgg16", weights=str(published))])
    check_weights([ModelSpec(name=NAME, weights=str(published))])


def test_densenets_file_is_loaded_whose_names_and_buffers_are_those_of_2017(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchvision's own loading does: `norm.1` for `norm1`, and no counters of batches."""
    torch.manual_seed(6)
    state = get_model("densenet121", weights=None).state_dict()
    old = {
        key.replace(".norm1.", ".norm.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".conv2.", ".conv.2."): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    monkeypatch.setattr(type(zoo.BUILDERS["densenet121"].weights), "get_state_dict", lambda self, **options: old)
    loaded = build_model("densenet121", 7, "imagenet").state_dict()
    for key, value in state.items():
        if not key.startswith("classifier."):
            assert torch.equal(loaded[key], value), key


@pytest.mark.parametrize("name", ["classifier.0.weight", "features.0.0.weight"])
def test_a_tensor_that_lies_the_other_way_round_is_refused_by_name(published: Path, tmp_path: Path, name: str) -> None:
    """It has as many numbers as the right one."""
    state = torch.load(published, weights_only=True)
    state[name] = state[name].transpose(0, 1).contiguous()
    path = tmp_path / "turned.pth"
    torch.save(state, path)
    with pytest.raises(InvalidInput, match=f"{name} has the shape"):
        check_weights([ModelSpec(name=NAME, weights=str(path))])
