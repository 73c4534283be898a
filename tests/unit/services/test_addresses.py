"""Which hosts may be called: nothing inside is reached, by whatever name, notation, redirect or change of a name."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpcore
import pytest
import trustme

from services import addresses
from services.errors import ForbiddenAddress

INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.9",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.7",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "2001:db8::1",
    "2001::1",
    "2002:7f00:1::",
    "3fff::1",
    "no address",
    "",
]


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_not_of_the_public_internet_is_told_apart(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450::1"])
def test_what_is_of_the_public_internet_may_be_called(address: str) -> None:
    assert addresses.is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://example.org/",
        "ftp://example.org/",
        "//example.org/",
        "https://",
        "https:///path",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://user@example.org/",
        "https://user:password@example.org/",
        "https://example.org/#part",
        "https://example.org/a b",
        "https://example.org/\r\nX-Other: 1",
        "https://example.org\\@127.0.0.1/",
        "https://\u24d4xample.org/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://x.localhost/",
        "https://printer.local/",
        "https://metadata.google.internal/",
        "https://redis/",
        "https://2130706433/",
        "https://127.1/",
        "http://example.org/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        *[f"https://{address}/" for address in ("127.0.0.1", "169.254.169.254", "[::1]", "10.0.0.1:8443")],
    ],
)
def test_an_address_that_can_be_no_receiver_is_refused_before_its_name_is_resolved(url: str) -> None:
    assert addresses.problem_of(url, ())


def test_a_public_address_and_hosts_that_are_allowed_by_name_are_taken() -> None:
    assert addresses.problem_of("https://lab.example.org/hooks?x=1", ()) is None
    assert addresses.problem_of("https://8.8.8.8:8443/", ()) is None
    assert addresses.problem_of("http://Inside.lan:8080/x", ["inside.lan."]) is None
    assert addresses.problem_of("http://[::1]:8080/x", ["::1"]) is None
    assert addresses.problem_of("http://other.lan:8080/x", ["inside.lan"])


def resolves_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names resolve to one answer after another; returns what was asked for."""
    asked: list[str] = []

    def resolved(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", resolved)  # type: ignore[attr-defined]
    return asked


def send(url: str, **options: Any) -> int:
    return addresses.post(url, b"{}", {}, **{"allowed": (), "seconds": 60.0, **options})


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:127.0.0.1"], ["fe80::1%eth0"]])
def test_a_name_that_leads_inside_is_not_connected_to(monkeypatch: pytest.MonkeyPatch, found: list[str]) -> None:
    resolves_to(monkeypatch, found)
    monkeypatch.setattr(addresses.httpcore.SyncBackend, "connect_tcp", None)  # type: ignore[attr-defined]
    with pytest.raises(ForbiddenAddress, match="BGPANET_WEBHOOK_HOSTS"):
        send("https://lab.example.org/")


def test_a_name_is_resolved_once_and_the_address_that_was_judged_is_the_one_that_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that answers otherwise the second time gains nothing."""
    asked = resolves_to(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    called: list[str] = []

    def connect(self: object, host: str, port: int, *_: object) -> httpcore.NetworkStream:
        called.append(host)
        raise httpcore.ConnectError("not here")

    monkeypatch.setattr(addresses.httpcore.SyncBackend, "connect_tcp", connect)  # type: ignore[attr-defined]
    with pytest.raises(httpcore.ConnectError):
        send("https://lab.example.org/")
    assert (asked, called) == (["lab.example.org"], ["8.8.8.8"])


# ── Against servers that listen ───────────────────────────────────────────────────────────────────────────────────


class Receiver(HTTPServer):
    """Takes whatever is posted, and answers what `answer` says."""

    answer: int = 204
    location: str | None = None
    hosts: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.hosts.append(self.headers["Host"])
        self.send_response(self.server.answer)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver(("127.0.0.1", 0), Handler)
    server.hosts = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answer, receiver.location = 307, f"http://127.0.0.1:{receiver.server_port}/other"
    assert send(f"http://127.0.0.1:{receiver.server_port}/first", allowed=["127.0.0.1"]) == 307
    assert len(receiver.hosts) == 1


def test_no_proxy_of_the_environment_is_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would resolve the name by itself, and inside its own network."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert send(f"http://127.0.0.1:{receiver.server_port}/", allowed=["127.0.0.1"]) == 204


def test_host_and_certificate_are_those_of_the_name_though_an_address_is_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("lab.example.org").configure_cert(server_tls)
    names: list[str | None] = []
    server_tls.sni_callback = lambda _socket, name, _context: names.append(name)
    receiver.socket = server_tls.wrap_socket(receiver.socket, server_side=True)
    client_tls = ssl.create_default_context()
    authority.configure_trust(client_tls)
    resolves_to(monkeypatch, ["127.0.0.1"])
    port = receiver.server_port
    assert send(f"https://lab.example.org:{port}/", allowed=["lab.example.org"], tls=client_tls) == 204
    assert (names, receiver.hosts) == (["lab.example.org"], [f"lab.example.org:{port}"])
    with pytest.raises(httpcore.ConnectError, match="certificate"):
        send(f"https://other.example.org:{port}/", allowed=["other.example.org"], tls=client_tls)
    with pytest.raises(httpcore.ConnectError, match="certificate"):
        send(f"https://lab.example.org:{port}/", allowed=["lab.example.org"])


def test_a_receiver_that_drips_is_left_in_time() -> None:
    """Each byte arrives before any single read would have timed out."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            for byte in b"HTTP/1.1 200 OK\r\n" + b"x" * 1000:
                if done.wait(0.05):
                    return
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(httpcore.ReadTimeout):
            send(f"http://127.0.0.1:{listener.getsockname()[1]}/", allowed=["127.0.0.1"], seconds=5.0)
        assert time.monotonic() - began < 40  # all 1,017 bytes would take longer
    finally:
        done.set()
        thread.join()
        listener.close()
