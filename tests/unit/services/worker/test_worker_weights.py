"""What a worker tells of the ImageNet weights that it can have."""

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpanet.catalogue import IMAGENET_FILES, WEIGHTS_URL
from services.fleet import Weights
from services.worker import weights
from services.worker.weights import SMALLEST, Lookout, answers, cache_folder


class Host(http.server.BaseHTTPRequestHandler):
    """Has one file."""

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path.endswith("/file.pth") else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(weights, "TIMEOUT_SECONDS", 120.0)  # of a busy machine
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("variables", [{}, {"TORCH_HOME": "~/t"}, {"XDG_CACHE_HOME": "/x"}], ids=str)
def test_the_folder_is_the_one_that_torch_uses(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_only_files_that_torchvision_names_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    lookout = Lookout(offline=True)
    folder = tmp_path / "hub" / "checkpoints"
    assert lookout() == Weights(str(folder), [], reachable=False)
    folder.mkdir(parents=True)
    for name in (SMALLEST, "resnet101.pth", f"{SMALLEST}.partial"):
        (folder / name).touch()
    assert lookout().files == [SMALLEST]


def test_the_file_that_is_asked_for_is_one_of_torchvisions() -> None:
    assert SMALLEST in IMAGENET_FILES


def test_a_host_answers_when_it_has_the_file(host: str) -> None:
    assert answers(f"{host}/models/file.pth")
    assert not answers(f"{host}/models/other.pth")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not answers(f"http://127.0.0.1:{free.getsockname()[1]}/file.pth")


def test_a_proxy_is_asked_where_one_is_set(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", host)
    monkeypatch.setenv("no_proxy", "")
    assert answers("http://weights.invalid/file.pth")


def test_a_host_that_is_silent_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = threading.Event(), threading.Event()
    addresses = []

    def silent(url: str) -> bool:
        addresses.append(url)
        asked.set()
        go_on.wait(60)
        return False

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "answers", silent)
    lookout = Lookout(offline=False)
    assert asked.wait(60)
    assert lookout().reachable is None  # while it waits
    lookout.close()
    go_on.set()
    assert addresses == [WEIGHTS_URL + SMALLEST]


@pytest.mark.parametrize(
    ("known", "text", "every"),
    [
        (Weights(), "\N{EN DASH}", True),
        (Weights("/f", ["a"], None), "\N{EN DASH}", True),
        (Weights("/f", ["a"], True), "reachable", True),
        (Weights("/f", ["a"], False), "1 file", False),
        (Weights("/f", ["a", "b"], False), "2 files", False),
        (Weights("/f", [], False), "none", False),
    ],
)
def test_a_worker_can_have_every_file_unless_it_is_known_to_be_offline(known: Weights, text: str, every: bool) -> None:
    assert str(known) == text
    assert set(known.obtainable) == (set(IMAGENET_FILES) if every else set(known.files))
