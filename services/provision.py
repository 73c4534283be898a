"""What a deployment needs before its parts start: secrets in files, the schema, a bucket, the first admin's token.

And what its health checks ask of parts that serve no requests.
"""

import json
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from services import tokens
from services.artifacts import S3Store
from services.context import Context
from services.database import now_ms
from services.errors import Conflict
from services.fleet import LOST_MS
from services.migration import migrate, revision_of
from services.production import is_weak
from services.tables import Leader, Worker


def make_secrets(folder: Path) -> list[str]:
    """Makes the secrets that docker-compose.yml names, each in a file of its own. Returns the names of the new ones.

    What is there is kept, and what is made of it fits. Containers run under users of their own, so the files can be
    read by anyone; the folder can't be entered by anyone but its owner.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    made: list[str] = []

    def keep(name: str, content: Callable[[], str]) -> str:
        path = folder / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(content() + "\n", encoding="utf-8")
            made.append(name)
        path.chmod(0o644)
        return path.read_text(encoding="utf-8").strip()

    postgres = keep("postgres_password", _fresh)
    keep("database_url", lambda: f"postgresql+psycopg://bgpanet:{postgres}@postgres:5432/bgpanet")
    redis = keep("redis_password", _fresh)
    keep("redis_url", lambda: f"redis://:{redis}@redis:6379/0")
    keep("redis.conf", lambda: f"requirepass {redis}")
    s3 = keep("s3_secret_key", _fresh)
    keep("s3_credentials", lambda: f"[default]\naws_access_key_id = bgpanet\naws_secret_access_key = {s3}")
    keep("s3.json", lambda: json.dumps(_s3_identities(s3), indent=2))
    keep("session_key", _fresh)
    keep("admin_token", lambda: f"bgp_{secrets.token_urlsafe(32)}")
    keep("grafana_password", _fresh)
    return made


def prepare(context: Context, admin_token: str | None) -> list[str]:
    """Brings the database to the schema of this version, makes the bucket, records an admin's token. May be repeated.

    Returns what was done, for people.

    Raises:
        Conflict: the token can be guessed, or is somebody else's.
    """
    if admin_token is not None and is_weak(admin_token):
        raise Conflict("the admin's token can be guessed; `bgpanet secrets` makes one that can't")
    migrate(context.settings.database_url)
    done = [f"the database is at {revision_of(context.settings.database_url)}"]
    if isinstance(context.store, S3Store):
        made = context.store.make_bucket()
        done.append(f"the bucket {context.store.bucket} {'is made' if made else 'is there'}")
    if admin_token is not None:
        done.append(_record(context, admin_token))
    return done


def worker_lives(context: Context) -> bool:
    """Whether a slot of a worker on this host was heard of lately."""
    seen = select(Worker.name).where(Worker.host == socket.gethostname(), Worker.seen_at >= now_ms() - LOST_MS)
    with context.database.read() as session:
        return session.scalar(seen.limit(1)) is not None


def scheduler_leads(context: Context) -> bool:
    """Whether a scheduler leads, on this host or another."""
    leading = select(Leader.holder).where(Leader.name == "scheduler", Leader.expires_at >= now_ms())
    with context.database.read() as session:
        return session.scalar(leading.limit(1)) is not None


def _record(context: Context, admin_token: str) -> str:
    owner = tokens.verify(context.database, admin_token)
    if owner is None:
        if tokens.is_known(context.database, admin_token):
            return "the admin's token was revoked, and stays so"
        tokens.create(context.database, "the first token", "admin", "admin", admin_token)
        return "the admin's token is recorded"
    if not owner.is_admin:
        raise Conflict(f"the admin's token is that of the {owner.role} {owner.user}")
    return "the admin's token is known"


def _fresh() -> str:
    return secrets.token_hex(24)  # no character that an address or a configuration would have to quote


def _s3_identities(secret_key: str) -> dict[str, object]:
    """Who may use SeaweedFS's S3 gateway, and for what."""
    credentials = [{"accessKey": "bgpanet", "secretKey": secret_key}]
    return {"identities": [{"name": "bgpanet", "credentials": credentials, "actions": ["Admin"]}]}
