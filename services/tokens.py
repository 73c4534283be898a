"""Bearer tokens: made, checked, revoked. Only a token's SHA-256 digest is kept; it has 256 random bits.

A token acts for a user, with that user's role, as far as its scopes go: whatever it may, a token that it makes may at
most, and for no longer.
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, CursorResult, bindparam, insert, or_, select, update

from bgpanet.errors import InvalidInput, Problem
from services.database import Also, Database, nothing, now_ms
from services.errors import Forbidden, NotFound
from services.ids import new_id
from services.settings import ROLES as ROLES
from services.settings import Role as Role
from services.tables import Token

SESSION = "browser session by OpenID Connect"  # the name of tokens that nobody made by hand
Scope = Literal["read", "submit", "manage"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Every token reads. `submit`: jobs, data sets, uploads. `manage`: projects, members, tokens, the audit trail."""


@dataclass(frozen=True)
class Principal:
    """Who asks. A viewer reads, a researcher also submits, an admin sees and does everything.

    expires_at: when the token ends, milliseconds; None: never.
    """

    user: str
    role: Role
    scopes: frozenset[Scope] = frozenset(SCOPES)
    token_id: str | None = None
    expires_at: int | None = None

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def may_write(self) -> bool:
        return self.role != "viewer" and "submit" in self.scopes

    @property
    def may_manage(self) -> bool:
        return "manage" in self.scopes


@dataclass(frozen=True)
class NewToken:
    """A token to make. user: whose; expires_at: milliseconds; None: it holds until it is revoked."""

    name: str
    user: str
    role: Role = "researcher"
    scopes: tuple[Scope, ...] = SCOPES
    expires_at: int | None = None


def create(
    database: Database, name: str, user: str, role: Role, secret: str | None = None, also: Also = nothing
) -> tuple[str, str]:
    """Makes a token with all scopes. Returns its id and the secret, which is shown this once."""
    return _insert(database, NewToken(name, user, role), secret, also)


def issue(database: Database, principal: Principal, new: NewToken, also: Also = nothing) -> tuple[str, str]:
    """Makes a token on somebody's behalf. Returns its id and the secret, which is shown this once.

    Raises:
        Forbidden: it would be another user's, or could do more or hold longer than the one that asks for it.
        InvalidInput: it would have expired already.
    """
    if why := _too_much(principal, new):
        raise Forbidden(why)
    with database.read() as session:
        now = session.scalar(select(now_ms())) or 0
    if new.expires_at is not None and new.expires_at <= now:
        raise InvalidInput([Problem("expires_at", "must be in the future")])
    return _insert(database, new, None, also)


def _too_much(principal: Principal, new: NewToken) -> str | None:
    if new.user != principal.user and not principal.is_admin:
        return "only an admin makes tokens for others"
    if ROLES.index(new.role) > ROLES.index(principal.role):
        return f"your role is {principal.role}; a token can't have that of {new.role}"
    if more := [scope for scope in new.scopes if scope not in principal.scopes]:
        return f"the token that asks has no scope {', '.join(more)}, so what it makes can't have it"
    if principal.expires_at is not None and (new.expires_at is None or new.expires_at > principal.expires_at):
        return "the token that asks expires earlier; give the new one an expiry that is no later"
    return None


def _insert(database: Database, new: NewToken, secret: str | None, also: Also) -> tuple[str, str]:
    secret = secret or f"bgp_{secrets.token_urlsafe(32)}"
    token_id = new_id()
    values = {**vars(new), "scopes": [scope for scope in SCOPES if scope in new.scopes or scope == "read"]}
    with database.write() as session:
        session.execute(insert(Token).values(id=token_id, digest=digest_of(secret), created_at=now_ms(), **values))
        also(session, token_id)
    return token_id, secret


def for_session(database: Database, user: str, role: Role, hours: float) -> str:
    """Makes the token of a browser session that began elsewhere, and ends after so many hours. Returns its secret."""
    with database.read() as session:
        now = session.scalar(select(now_ms())) or 0
    new = NewToken(SESSION, user, role, expires_at=now + round(hours * 3_600_000))
    return _insert(database, new, None, nothing)[1]


def end_session(database: Database, digest: str) -> None:
    """Ends the token of such a session, when somebody signs out. Tokens that people made stay."""
    of_session = [Token.digest == digest, Token.name == SESSION, Token.revoked_at.is_(None)]
    with database.write() as session:
        session.execute(update(Token).where(*of_session).values(revoked_at=now_ms()))


def verify(database: Database, secret: str) -> Principal | None:
    """Whom a secret belongs to; None where it is unknown, revoked or expired."""
    return verify_digest(database, digest_of(secret))


def verify_digest(database: Database, digest: str) -> Principal | None:
    """The same of a secret's digest, which is what a browser's session holds."""
    with database.read() as session:
        row = session.scalar(_OF_DIGEST, {"digest": digest})
    if row is None:
        return None
    scopes = frozenset(scope for scope in SCOPES if scope in row.scopes)
    return Principal(row.user, _role(row.role), scopes, row.id, row.expires_at)


def is_known(database: Database, secret: str) -> bool:
    """Whether a secret was ever recorded, revoked or not."""
    with database.read() as session:
        return session.scalar(select(Token.id).where(Token.digest == digest_of(secret))) is not None


def has_admin(database: Database) -> bool:
    """Whether there is an admin's token that holds. Raises SQLAlchemyError."""
    with database.read() as session:
        return session.scalar(select(Token.id).where(Token.role == "admin", _holds()).limit(1)) is not None


def list_tokens(
    database: Database,
    user: str | None = None,
    *,
    is_holding: bool = False,
    before: str | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """A user's tokens, or everyone's, newest first, without their secrets. Times are milliseconds.

    is_holding: only those that are neither revoked nor expired; before: only those older than this id.
    """
    query = select(Token).order_by(Token.id.desc()).limit(limit)
    if user is not None:
        query = query.where(Token.user == user)
    if is_holding:
        query = query.where(_holds())
    if before is not None:
        query = query.where(Token.id < before)
    told = ("id", "name", "user", "role", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    with database.read() as session:
        return [{name: getattr(row, name) for name in told} for row in session.scalars(query)]


def revoke(database: Database, token_id: str, user: str | None = None, also: Also = nothing) -> None:
    """Ends a token at once. user: whose it has to be. Raises NotFound."""
    wanted = [Token.id == token_id, Token.revoked_at.is_(None)]
    if user is not None:
        wanted.append(Token.user == user)
    with database.write() as session:
        result = session.execute(update(Token).where(*wanted).values(revoked_at=now_ms()))
        if isinstance(result, CursorResult) and result.rowcount == 0:
            raise NotFound(f"there is no token {token_id} that could be revoked")
        also(session, token_id)


def touch(database: Database, token_ids: Iterable[str], every_ms: int) -> None:
    """Notes that tokens were used, each where that was noted longer ago than `every_ms`."""
    long_ago = or_(Token.last_used_at.is_(None), Token.last_used_at <= now_ms() - every_ms)
    with database.write() as session:
        session.execute(update(Token).where(Token.id.in_(list(token_ids)), long_ago).values(last_used_at=now_ms()))


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _holds() -> ColumnElement[bool]:
    return Token.revoked_at.is_(None) & or_(Token.expires_at.is_(None), Token.expires_at > now_ms())


_OF_DIGEST = select(Token).where(Token.digest == bindparam("digest"), _holds())  # made once: every request asks it


def _role(text: str) -> Role:
    return next(role for role in ROLES if role == text)
