"""Bearer tokens: made, checked, revoked. Only a token's SHA-256 digest is kept; it has 256 random bits."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import CursorResult, insert, select, update

from services.database import Database, now_ms
from services.errors import NotFound
from services.ids import new_id
from services.tables import Token

Role = Literal["viewer", "researcher", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Principal:
    """Who asks. A viewer reads, a researcher also submits, an admin sees and does everything."""

    user: str
    role: Role

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def may_write(self) -> bool:
        return self.role != "viewer"


def create(database: Database, name: str, user: str, role: Role, secret: str | None = None) -> tuple[str, str]:
    """Makes a token. Returns its id and the secret, which is shown this once."""
    secret = secret or f"bgp_{secrets.token_urlsafe(32)}"
    token_id = new_id()
    with database.write() as session:
        session.execute(
            insert(Token).values(
                id=token_id, name=name, user=user, role=role, digest=_digest(secret), created_at=now_ms()
            )
        )
    return token_id, secret


def verify(database: Database, secret: str) -> Principal | None:
    """Whom a secret belongs to; None where it is unknown or revoked."""
    with database.read() as session:
        token = session.scalar(select(Token).where(Token.digest == _digest(secret), Token.revoked_at.is_(None)))
    return None if token is None else Principal(token.user, _role(token.role))


def is_known(database: Database, secret: str) -> bool:
    """Whether a secret was ever recorded, revoked or not."""
    with database.read() as session:
        return session.scalar(select(Token.id).where(Token.digest == _digest(secret))) is not None


def list_tokens(database: Database) -> list[dict[str, Any]]:
    """All tokens, newest first, without their secrets."""
    with database.read() as session:
        tokens = session.scalars(select(Token).order_by(Token.id.desc())).all()
    return [
        {
            "id": t.id,
            "name": t.name,
            "user": t.user,
            "role": t.role,
            "created_at": t.created_at,
            "revoked_at": t.revoked_at,
        }
        for t in tokens
    ]


def revoke(database: Database, token_id: str) -> None:
    """Ends a token at once. Raises NotFound."""
    with database.write() as session:
        result = session.execute(
            update(Token).where(Token.id == token_id, Token.revoked_at.is_(None)).values(revoked_at=now_ms())
        )
        if isinstance(result, CursorResult) and result.rowcount == 0:
            raise NotFound(f"there is no token {token_id} that could be revoked")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _role(text: str) -> Role:
    return next(role for role in ROLES if role == text)
