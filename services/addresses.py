"""Which hosts are called on a user's behalf: those of the public internet, and those that settings allow by name.

A name is resolved once, its addresses are judged, and the connection goes to one of just those: whatever the name
resolves to a moment later, nothing inside is reached. Host header, SNI and certificate stay those of the name.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore

from services.errors import ForbiddenAddress

# What is inside 2000::/3 and leads elsewhere than to the address itself, or nowhere: protocol assignments with Teredo,
# documentation, 6to4. Everything outside it (mapped and translated IPv4, local, multicast) is never called.
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NOT_PUBLIC_4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))
_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet's, and nothing else."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None or found not in _UNICAST_6:
            return False
        return not any(found in network for network in _NOT_PUBLIC_6)
    special = found.is_multicast or found.is_reserved or found.is_unspecified
    return found.is_global and not special and not any(found in network for network in _NOT_PUBLIC_4)


def is_allowed(host: str, allowed: Iterable[str]) -> bool:
    """Whether settings allow a host by name, whatever its addresses are."""
    return _plain(host) in map(_plain, allowed)


def _plain(host: str) -> str:
    return host.lower().removesuffix(".").strip("[]")


def problem_of(url: str, allowed: Collection[str]) -> str | None:
    """Why an address can't be called, as far as it can be told without resolving its name; None: it may be tried."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        return f"is no address: {error}"
    if not url.isascii() or any(character <= " " or character in '\\"<>^`{|}\x7f' for character in url):
        return "must be plain ASCII without spaces; write other letters percent-encoded, and hosts in punycode"
    if parts.scheme not in ("https", "http") or not host or port == 0:
        return "must be like https://host/path"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "must have no user, password or fragment; calls are signed instead"
    if is_allowed(host, allowed):
        return None
    if parts.scheme == "http":
        return f"must be https; only hosts that BGPANET_WEBHOOK_HOSTS names may be called by http, and {host} is none"
    name = _plain(host)
    is_literal = ":" in name or name.replace(".", "").isdigit()
    is_local = any(name == end or name.endswith(f".{end}") for end in _LOCAL_NAMES) or "." not in name
    if is_public(name) or not (is_literal or is_local):
        return None
    return f"{host} is not on the public internet; an operator can allow it by name in BGPANET_WEBHOOK_HOSTS"


def resolve(host: str, port: int, allowed: Collection[str]) -> list[str]:
    """The IP addresses of a host, all of which may be called.

    Raises:
        ForbiddenAddress: at least one may not.
        OSError: the name can't be resolved.
    """
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    addresses = list(dict.fromkeys(found))
    if not is_allowed(host, allowed) and not all(map(is_public, addresses)):
        raise ForbiddenAddress(
            f"{host} leads to an address that is not on the public internet; "
            "an operator can allow the host by name in BGPANET_WEBHOOK_HOSTS"
        )
    return addresses


def post(
    url: str, body: bytes, headers: dict[str, str], *, allowed: Collection[str], seconds: float, tls: Any = None
) -> int:
    """Sends a POST and returns the answer's status. Nothing else of the answer is read, and no redirect is followed.

    seconds: for all of it, but for resolving the name. tls: an `ssl.SSLContext`; None: the usual authorities.

    Raises:
        ForbiddenAddress: the host may not be called.
        OSError: its name can't be resolved.
        httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: it did not answer as it should.
    """
    context: ssl.SSLContext | None = tls
    backend = _Guarded(allowed, time.monotonic() + seconds)
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    with (
        httpcore.ConnectionPool(ssl_context=context, network_backend=backend) as pool,
        pool.stream(
            "POST", url, headers=list(headers.items()), content=body, extensions={"timeout": timeouts}
        ) as answer,
    ):
        return answer.status


class _Guarded(httpcore.NetworkBackend):
    """Connects to what `resolve` lets through and to nothing else, until a deadline."""

    def __init__(self, allowed: Collection[str], deadline: float) -> None:
        self._allowed, self._deadline, self._plain = allowed, deadline, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in resolve(host, port, self._allowed):
            try:
                stream = self._plain.connect_tcp(
                    address, port, _left(self._deadline, httpcore.ConnectTimeout), local_address, socket_options
                )
                return _Bounded(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("sockets of this machine are not called")

    def sleep(self, seconds: float) -> None:
        self._plain.sleep(seconds)


class _Bounded(httpcore.NetworkStream):
    """A stream of which all reads and writes together end by a deadline, however slowly the other side drips."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(self._deadline, httpcore.ConnectTimeout)
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float, late: type[httpcore.TimeoutException]) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise late("it took too long")
    return left
