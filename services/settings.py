"""The only reader of the environment."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

Role = Literal["viewer", "researcher", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)  # the least first


@dataclass(frozen=True)
class OpenID:
    """Where people may sign in beside tokens.

    issuer: the provider, as its discovery document names it. name: what it is called on the sign-in page. roles: groups
    of `groups_claim` with the role of who is in them; `*` is everybody whom the provider lets in. user_claim: the claim
    that is the user's name here. scope: what is asked for. session_hours: after which one signs in again.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    roles: tuple[tuple[str, Role], ...]
    name: str = "OpenID Connect"
    user_claim: str = "email"
    groups_claim: str = "groups"
    scope: str = "openid profile email"
    session_hours: float = 12.0

    @classmethod
    def load(cls, get: Callable[[str], str | None]) -> "OpenID | None":
        """None where no issuer is named. Raises ValueError."""
        issuer = get("BGPANET_OPENID_ISSUER")
        if not issuer:
            return None
        parts = urlsplit(issuer)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")):
            raise ValueError(f"BGPANET_OPENID_ISSUER={issuer!r} must begin with https://")
        needed = {name: get(f"BGPANET_OPENID_{name}") or "" for name in ("CLIENT_ID", "CLIENT_SECRET", "ROLES")}
        if missing := [f"BGPANET_OPENID_{name}" for name, value in needed.items() if not value]:
            raise ValueError(f"BGPANET_OPENID_ISSUER needs {', '.join(missing)}, too")
        hours = "BGPANET_OPENID_SESSION_HOURS"
        return cls(
            issuer=issuer,
            client_id=needed["CLIENT_ID"],
            client_secret=needed["CLIENT_SECRET"],
            roles=tuple(_group(text.strip()) for text in needed["ROLES"].split(",")),
            name=get("BGPANET_OPENID_NAME") or cls.name,
            user_claim=get("BGPANET_OPENID_USER_CLAIM") or cls.user_claim,
            groups_claim=get("BGPANET_OPENID_GROUPS_CLAIM") or cls.groups_claim,
            scope=get("BGPANET_OPENID_SCOPE") or cls.scope,
            session_hours=_number(hours, get(hours), cls.session_hours, 8_760, "hours"),
        )

    def environment(self) -> dict[str, str]:
        """The variables that load it."""
        values = {
            "ISSUER": self.issuer,
            "CLIENT_ID": self.client_id,
            "CLIENT_SECRET": self.client_secret,
            "ROLES": ",".join(f"{group}={role}" for group, role in self.roles),
            "NAME": self.name,
            "USER_CLAIM": self.user_claim,
            "GROUPS_CLAIM": self.groups_claim,
            "SCOPE": self.scope,
            "SESSION_HOURS": str(self.session_hours),
        }
        return {f"BGPANET_OPENID_{name}": value for name, value in values.items()}


def _group(text: str) -> tuple[str, Role]:
    group, _, role = text.rpartition("=")
    if not group or role not in ROLES:
        raise ValueError(
            f"BGPANET_OPENID_ROLES: {text!r} must be like staff=researcher, with a role of {', '.join(ROLES)}"
        )
    return group, role


@dataclass(frozen=True)
class Settings:
    """Where everything is.

    home: folder of the embedded form's database, artifacts, caches and secrets.
    database_url: SQLAlchemy's form; PostgreSQL or SQLite.
    redis_url: the broker's.
    artifacts_url: `file:///…` or `s3://bucket/prefix`.
    lease_seconds: how long a silent worker keeps its job.
    grace_seconds: how long a child may take to write a checkpoint when it is asked to stop.
    stall_seconds: how long a child may say nothing before it counts as hung.
    offline: a worker asks no host outside whether weights can be downloaded.
    pixel_cache_gb: how much decoded pixels a host keeps, in 10^9 bytes; above it the least recently used go.
    upload_bytes: the largest file that may be uploaded.
    max_attempts: how often in a row a job may be lost without getting any further before it fails.
    retry_seconds: before the second, third, … try after a loss; the last one repeats.
    running_per_user, queued_per_user, queued: how many jobs of a user may run and wait, and of all may wait; None: any.
    keep_failed_days: how long checkpoints of jobs that have ended stay, so that a failed one can be retried from them.
    keep_logs_days: how long log lines stay after their job's end.
    worker_labels: what jobs may ask for of this host's workers, beside what they are labelled with by themselves.
    source_buckets: buckets of the S3 server from which data sets may be registered.
    public_url: where people reach the API from outside, behind whatever ends TLS; None: where it listens.
    embedded: this is a part of `bgpanet up`, which makes its own secrets.
    webhook_hosts: hosts that webhooks may call though they are not on the public internet, also by plain HTTP.
    streams, streams_per_token: how many event streams an API process serves at once, in all and of one token.
    requests_per_second, requests_at_once: how often a token may ask of each API process: steadily, and in one go.
    body_bytes: the largest body of a request, but of those that carry a part of an upload.
    openid: where people may sign in beside tokens; None: nowhere.
    session_key: signs browser sessions; None: a key in the home, which only the processes of one host share.
    s3_public_url: how those who fetch results and upload files reach the S3 server; None: as this process does.
    metrics_host, metrics_port: where a worker or scheduler tells Prometheus what only it knows; no port: nowhere.
    log_format: `text`, or `json` for one object a line.
    traces_url: where spans go, by OTLP over HTTP; None: traces are off.
    url, token: what the client and the command line talk to; None: the home's.
    """

    home: Path
    database_url: str
    redis_url: str
    artifacts_url: str
    s3_endpoint_url: str | None = None
    lease_seconds: float = 30.0
    grace_seconds: float = 20.0
    stall_seconds: float = 900.0
    offline: bool = False
    pixel_cache_gb: float = 100.0
    upload_bytes: int = 200_000_000_000
    max_attempts: int = 3
    retry_seconds: tuple[float, ...] = (1.0, 10.0, 60.0)
    running_per_user: int | None = None
    queued_per_user: int | None = 1_000
    queued: int | None = 10_000
    keep_failed_days: float = 14.0
    keep_logs_days: float = 90.0
    worker_labels: tuple[str, ...] = ()
    source_buckets: tuple[str, ...] = ()
    public_url: str | None = None
    embedded: bool = False
    webhook_hosts: tuple[str, ...] = ()
    streams: int = 32
    streams_per_token: int = 8
    requests_per_second: float = 200.0
    requests_at_once: int = 1_000
    body_bytes: int = 2 * 1024 * 1024
    session_key: str | None = None
    openid: OpenID | None = None
    s3_public_url: str | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    log_format: Literal["text", "json"] = "text"
    traces_url: str | None = None
    url: str | None = None
    token: str | None = None

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """The settings that the environment asks for: each variable, or the file that it names with `_FILE`.

        Raises:
            ValueError: a number is none, a file can't be read, or a variable is there in both forms.
        """
        get = with_files(os.environ if environment is None else environment).get
        home = Path(get("BGPANET_HOME") or Path.home() / ".bgpanet").expanduser().absolute()
        return cls(
            home=home,
            database_url=get("BGPANET_DATABASE_URL") or f"sqlite:///{home / 'bgpanet.db'}",
            redis_url=get("BGPANET_REDIS_URL") or "redis://127.0.0.1:6379/0",
            artifacts_url=get("BGPANET_ARTIFACTS_URL") or (home / "artifacts").as_uri(),
            s3_endpoint_url=get("BGPANET_S3_ENDPOINT_URL") or None,
            lease_seconds=_seconds("BGPANET_LEASE_SECONDS", get("BGPANET_LEASE_SECONDS"), 30.0),
            grace_seconds=_seconds("BGPANET_GRACE_SECONDS", get("BGPANET_GRACE_SECONDS"), 20.0),
            stall_seconds=_seconds("BGPANET_STALL_SECONDS", get("BGPANET_STALL_SECONDS"), 900.0),
            offline=get("BGPANET_OFFLINE", "") not in ("", "0"),
            pixel_cache_gb=_number("BGPANET_PIXEL_CACHE_GB", get("BGPANET_PIXEL_CACHE_GB"), 100.0, 1e6, "gigabytes"),
            upload_bytes=_bytes("BGPANET_UPLOAD_BYTES", get("BGPANET_UPLOAD_BYTES"), 200_000_000_000),
            max_attempts=_count("BGPANET_MAX_ATTEMPTS", get("BGPANET_MAX_ATTEMPTS"), 3) or 3,
            retry_seconds=tuple(
                _seconds("BGPANET_RETRY_SECONDS", text, 1.0)
                for text in (get("BGPANET_RETRY_SECONDS") or "1,10,60").split(",")
            ),
            running_per_user=_count("BGPANET_RUNNING_PER_USER", get("BGPANET_RUNNING_PER_USER"), None),
            queued_per_user=_count("BGPANET_QUEUED_PER_USER", get("BGPANET_QUEUED_PER_USER"), 1_000),
            queued=_count("BGPANET_QUEUED", get("BGPANET_QUEUED"), 10_000),
            keep_failed_days=_days("BGPANET_KEEP_FAILED_DAYS", get("BGPANET_KEEP_FAILED_DAYS"), 14.0),
            keep_logs_days=_days("BGPANET_KEEP_LOGS_DAYS", get("BGPANET_KEEP_LOGS_DAYS"), 90.0),
            worker_labels=tuple(filter(None, (get("BGPANET_WORKER_LABELS") or "").replace(",", " ").split())),
            source_buckets=tuple(filter(None, (get("BGPANET_SOURCE_BUCKETS") or "").replace(",", " ").split())),
            public_url=_address("BGPANET_PUBLIC_URL", get("BGPANET_PUBLIC_URL")),
            embedded=get("BGPANET_EMBEDDED", "") not in ("", "0"),
            webhook_hosts=tuple(filter(None, (get("BGPANET_WEBHOOK_HOSTS") or "").replace(",", " ").split())),
            streams=_count("BGPANET_STREAMS", get("BGPANET_STREAMS"), 32) or 32,
            streams_per_token=_count("BGPANET_STREAMS_PER_TOKEN", get("BGPANET_STREAMS_PER_TOKEN"), 8) or 8,
            requests_per_second=_number(
                "BGPANET_REQUESTS_PER_SECOND", get("BGPANET_REQUESTS_PER_SECOND"), 200.0, 1e6, "requests"
            ),
            requests_at_once=_count("BGPANET_REQUESTS_AT_ONCE", get("BGPANET_REQUESTS_AT_ONCE"), 1_000) or 1_000,
            body_bytes=_bytes("BGPANET_BODY_BYTES", get("BGPANET_BODY_BYTES"), 2 * 1024 * 1024),
            session_key=_session_key(get("BGPANET_SESSION_KEY")),
            openid=OpenID.load(get),
            s3_public_url=get("BGPANET_S3_PUBLIC_URL") or None,
            metrics_host=get("BGPANET_METRICS_HOST") or "127.0.0.1",
            metrics_port=_port("BGPANET_METRICS_PORT", get("BGPANET_METRICS_PORT")),
            log_format=_log_format(get("BGPANET_LOG_FORMAT")),
            traces_url=_url("BGPANET_TRACES_URL", get("BGPANET_TRACES_URL")),
            url=get("BGPANET_URL") or None,
            token=get("BGPANET_TOKEN") or None,
        )

    @property
    def cache(self) -> Path:
        """Folder for what a worker can fetch or compute again."""
        return self.home / "cache"

    @property
    def scratch(self) -> Path:
        """Folder for the files of running attempts."""
        return self.home / "scratch"

    def environment(self) -> dict[str, str]:
        """The variables that give a child process these settings."""
        values = {
            "BGPANET_HOME": str(self.home),
            "BGPANET_DATABASE_URL": self.database_url,
            "BGPANET_REDIS_URL": self.redis_url,
            "BGPANET_ARTIFACTS_URL": self.artifacts_url,
            "BGPANET_S3_ENDPOINT_URL": self.s3_endpoint_url or "",
            "BGPANET_LEASE_SECONDS": str(self.lease_seconds),
            "BGPANET_GRACE_SECONDS": str(self.grace_seconds),
            "BGPANET_STALL_SECONDS": str(self.stall_seconds),
            "BGPANET_OFFLINE": "1" if self.offline else "",
            "BGPANET_PIXEL_CACHE_GB": str(self.pixel_cache_gb),
            "BGPANET_UPLOAD_BYTES": str(self.upload_bytes),
            "BGPANET_MAX_ATTEMPTS": str(self.max_attempts),
            "BGPANET_RETRY_SECONDS": ",".join(map(str, self.retry_seconds)),
            "BGPANET_RUNNING_PER_USER": str(self.running_per_user or ""),
            "BGPANET_QUEUED_PER_USER": str(self.queued_per_user or ""),
            "BGPANET_QUEUED": str(self.queued or ""),
            "BGPANET_KEEP_FAILED_DAYS": str(self.keep_failed_days),
            "BGPANET_KEEP_LOGS_DAYS": str(self.keep_logs_days),
            "BGPANET_WORKER_LABELS": ",".join(self.worker_labels),
            "BGPANET_SOURCE_BUCKETS": ",".join(self.source_buckets),
            "BGPANET_PUBLIC_URL": self.public_url or "",
            "BGPANET_EMBEDDED": "1" if self.embedded else "",
            "BGPANET_WEBHOOK_HOSTS": ",".join(self.webhook_hosts),
            "BGPANET_STREAMS": str(self.streams),
            "BGPANET_STREAMS_PER_TOKEN": str(self.streams_per_token),
            "BGPANET_REQUESTS_PER_SECOND": str(self.requests_per_second),
            "BGPANET_REQUESTS_AT_ONCE": str(self.requests_at_once),
            "BGPANET_BODY_BYTES": str(self.body_bytes),
            "BGPANET_SESSION_KEY": self.session_key or "",
            "BGPANET_S3_PUBLIC_URL": self.s3_public_url or "",
            "BGPANET_METRICS_HOST": self.metrics_host,
            "BGPANET_METRICS_PORT": str(self.metrics_port or ""),
            "BGPANET_LOG_FORMAT": self.log_format,
            "BGPANET_TRACES_URL": self.traces_url or "",
        }
        values |= {} if self.openid is None else self.openid.environment()
        return {name: value for name, value in values.items() if value}


def with_files(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of this product; one that stands in a file (`BGPANET_TOKEN_FILE=/run/secrets/token`) has its
    content, without white space around it.

    Raises:
        ValueError: with every file that can't be read, and every variable that is there in both forms.
    """
    values = {name: value for name, value in environment.items() if name.startswith("BGPANET_")}
    wrong = []
    for name, path in sorted(values.items()):
        if not name.endswith("_FILE") or not path:
            continue
        variable = name.removesuffix("_FILE")
        if values.get(variable):
            wrong.append(f"{variable} and {name} are both there; leave one of them out")
            continue
        try:
            values[variable] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            wrong.append(f"{name}={path!r} can't be read: {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return values


def _session_key(text: str | None) -> str | None:
    if text and len(text) < 32:
        raise ValueError("BGPANET_SESSION_KEY must have at least 32 characters; `bgpanet secrets` makes one")
    return text or None


def _address(name: str, text: str | None) -> str | None:
    if not text:
        return None
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"{name}={text!r} must be like https://host, without a path")
    return text.rstrip("/")


def _seconds(name: str, text: str | None, default: float) -> float:
    return _number(name, text, default, 86_400, "seconds")


def _days(name: str, text: str | None, default: float) -> float:
    return _number(name, text, default, 36_500, "days")


def _number(name: str, text: str | None, default: float, below: float, unit: str) -> float:
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < below:
        raise ValueError(f"{name}={text!r} must be a number of {unit} between 0 and {below:.0f}")
    return value


def _count(name: str, text: str | None, default: int | None) -> int | None:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{name}={text!r} must be a whole number above 0")
    return int(text)


def _bytes(name: str, text: str | None, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{name}={text!r} must be a number of bytes above 0")
    return int(text)


def _port(name: str, text: str | None) -> int | None:
    port = _count(name, text, None)
    if port is not None and port > 65_535:
        raise ValueError(f"{name}={text!r} must be a port, 65535 at most")
    return port


def _log_format(text: str | None) -> Literal["text", "json"]:
    if text not in (None, "", "text", "json"):
        raise ValueError(f"BGPANET_LOG_FORMAT={text!r} must be text or json")
    return "json" if text == "json" else "text"


def _url(name: str, text: str | None) -> str | None:
    if text and not text.startswith(("http://", "https://")):
        raise ValueError(f"{name}={text!r} must begin with http:// or https://")
    return text or None
