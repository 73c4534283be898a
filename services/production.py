"""What a deployment must not start with: secrets that can be guessed, open servers, sessions in plain HTTP.

`bgpanet api`, `scheduler` and `worker` ask before they start. The parts of `bgpanet up` don't: it makes its own
secrets, and listens where it is told. What only this machine can reach is trusted to be guarded by it.
"""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import redis
from redis.exceptions import AuthenticationError, RedisError
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from services import tokens
from services.audit import Act, noted
from services.context import Context
from services.database import Database
from services.errors import Conflict, Insecure
from services.settings import Settings
from services.tokens import Principal

SHORTEST_SECRET = 16  # characters
FEWEST_CHARACTERS = 6  # different ones
WORDS = (
    "bgpanet",
    "changeme",
    "changethis",
    "default",
    "example",
    "minioadmin",
    "password",
    "postgres",
    "redis",
    "secret",
)
FEWEST_REST = 12  # characters of a secret beside such words, with which it counts as none of them
PROBE_SECONDS = 2.0


def refuse_if_unsafe(settings: Settings, listens_on: str | None = None) -> None:
    """Raises Insecure with everything that is wrong. listens_on: where the API listens; None: this is another part."""
    if settings.embedded:
        return
    if wrong := list(problems(settings, listens_on)):
        listed = "\n".join(f"- {problem}" for problem in wrong)
        raise Insecure(f"this installation is not safe to start:\n{listed}\n`bgpanet doctor` looks at it again")


def problems(settings: Settings, listens_on: str | None = None) -> Iterator[str]:
    """Everything that is unsafe, each with what to do."""
    yield from _database(settings.database_url)
    yield from _redis(settings.redis_url)
    yield from _s3(settings)
    if listens_on is not None:
        yield from _sessions(settings.public_url, listens_on)
        yield from _tokens(settings.database_url)


def is_weak(secret: str) -> bool:
    """Whether a secret can be guessed: it is short, repeats itself, or is little more than well-known words."""
    plain = rest = "".join(filter(str.isalnum, secret.lower()))
    for word in WORDS:
        rest = rest.replace(word, "")
    is_worded = rest != plain and len(rest) < FEWEST_REST
    return len(secret) < SHORTEST_SECRET or len(set(secret)) < FEWEST_CHARACTERS or is_worded


def is_local(host: str | None) -> bool:
    """Whether only this machine can reach a host: loopback, or a socket in its file system (no host, or a path)."""
    name = (host or "").strip("[]").lower()
    if not name or name.startswith("/") or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


# ── Services ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _database(text: str) -> Iterator[str]:
    url = make_url(text)
    if url.get_backend_name() == "sqlite":
        return
    named = url.query.get("host", ())
    hosts = [host for each in ([named] if isinstance(named, str) else named) for host in each.split(",")]
    away = [host for host in [url.host, *hosts] if not is_local(host)]
    if not away:
        return
    where = f"the database on {', '.join(dict.fromkeys(map(str, away)))}"
    if url.password is not None and is_weak(str(url.password)):
        yield f"{where} has a password that can be guessed; {_give('BGPANET_DATABASE_URL')}"
    elif url.password is None and not {"sslcert", "passfile", "service"} & url.query.keys():
        yield f"{where} is used without a password; {_give('BGPANET_DATABASE_URL')}"


def _redis(text: str) -> Iterator[str]:
    parts = urlsplit(text)
    if parts.scheme not in ("redis", "rediss") or is_local(parts.hostname):
        return
    where = f"Redis on {parts.hostname}"
    if not parts.password:
        yield f"{where} is used without a password; set `requirepass` there, and {_give('BGPANET_REDIS_URL')}"
    elif is_weak(parts.password):
        yield f"{where} has a password that can be guessed; set another there, and {_give('BGPANET_REDIS_URL')}"
    if parts.password and redis_is_open(text):
        yield f"{where} answers whoever asks, without a password; set `requirepass` (or an ACL) there"


def redis_is_open(text: str) -> bool:
    """Whether a Redis answers somebody who has no password; False also where it does not answer at all."""
    parts = urlsplit(text)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    bare = SplitResult(parts.scheme, host + (f":{parts.port}" if parts.port else ""), parts.path, parts.query, "")
    options: dict[str, Any] = {"socket_connect_timeout": PROBE_SECONDS, "socket_timeout": PROBE_SECONDS}
    try:
        with redis.Redis.from_url(urlunsplit(bare), **options) as client:
            return bool(client.ping())
    except (AuthenticationError, RedisError, OSError):
        return False


def _s3(settings: Settings) -> Iterator[str]:
    host = urlsplit(settings.s3_endpoint_url or "").hostname
    if not settings.artifacts_url.startswith("s3:") or host is None or is_local(host):
        return
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        credentials = boto3.Session().get_credentials()
        secret = None if credentials is None else credentials.get_frozen_credentials().secret_key
    except BotoCoreError:
        secret = None
    if not secret:
        yield f"no credentials for the S3 server on {host}; set AWS_SHARED_CREDENTIALS_FILE, or AWS_… variables"
    elif is_weak(secret):
        yield f"the S3 server on {host} has a secret key that can be guessed; set another there and in AWS_…"


def _give(variable: str) -> str:
    return f"name a password of at least {SHORTEST_SECRET} random characters in {variable}"


# ── The API ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _sessions(public_url: str | None, listens_on: str) -> Iterator[str]:
    if public_url is None:
        if not is_local(listens_on) or listens_on == "":
            yield (
                f"the API listens on {listens_on or 'every address'}, where tokens and sessions would travel in plain "
                "HTTP; put TLS in front of it and name the address that people use in BGPANET_PUBLIC_URL=https://…, "
                "or listen on 127.0.0.1"
            )
        return
    parts = urlsplit(public_url)
    if parts.scheme != "https" and not is_local(parts.hostname):
        yield f"BGPANET_PUBLIC_URL={public_url} is plain HTTP: tokens and sessions could be read; it must be https://…"


def _tokens(database_url: str) -> Iterator[str]:
    database = Database(database_url)
    try:
        if not tokens.has_admin(database):
            yield "nobody could sign in: there is no admin's token; make one with `bgpanet first-token`"
    except OperationalError as error:
        # One that is away for a moment is waited for, as by all parts; one without tables will not get them by itself.
        if "no such table" in str(error):
            yield "the database has no tables; run `bgpanet migrate`"
    except SQLAlchemyError as error:
        if "UndefinedTable" in str(error):
            yield "the database has no tables; run `bgpanet migrate`"
    finally:
        database.close()


def first_token(context: Context) -> str:
    """Makes an admin's token where there is none, and returns its secret.

    Raises:
        Conflict: there is one.
    """
    if tokens.has_admin(context.database):
        raise Conflict("there is an admin's token already; `bgpanet token create` makes others with it")
    name = f"first token, made on {socket.gethostname()}"
    made = Act(Principal("admin", "admin"), "token.create", detail={"name": name})
    return tokens.create(context.database, name, "admin", "admin", also=noted(context.database, made))[1]
