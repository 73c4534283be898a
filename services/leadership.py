"""Of many schedulers one works: it holds a lease by the database's clock, and the next one follows when it ends."""

import time

from sqlalchemy import case, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from services.database import Database, now_ms
from services.tables import Leader

SECONDS = 4.0  # of silence, after which another one leads


class Leadership:
    """One candidate for the office `name`. `holder` must be unique among candidates.

    Two may believe for a moment that they lead (one was stopped and goes on): what a leader does must be harmless then.
    """

    def __init__(self, database: Database, name: str, holder: str, seconds: float = SECONDS) -> None:
        self.database, self.name, self.holder, self.seconds = database, name, holder, seconds
        self._until = 0.0  # by this process's own clock, never later than by the database's

    @property
    def leads(self) -> bool:
        """Whether the lease that `hold` got is still good. May be asked from any thread."""
        return time.monotonic() < self._until

    def hold(self) -> int | None:
        """Takes the lease where it is free, or renews it. Returns the term; None while another one leads.

        A lease that ends later than any could is one of a clock that was set back since; it counts as free.
        """
        asked_at = time.monotonic()
        lease_ms = round(self.seconds * 1000)
        dialect = sqlite if self.database.is_sqlite else postgresql
        statement = dialect.insert(Leader).values(
            name=self.name, holder=self.holder, term=1, expires_at=now_ms() + lease_ms
        )
        ours = Leader.holder == self.holder
        free = or_(ours, Leader.expires_at < now_ms(), Leader.expires_at > now_ms() + 3 * lease_ms)
        new = {
            "holder": statement.excluded.holder,
            "expires_at": statement.excluded.expires_at,
            "term": case((ours, Leader.term), else_=Leader.term + 1),
        }
        taken = statement.on_conflict_do_update(index_elements=["name"], set_=new, where=free)
        with self.database.write() as session:
            term: int | None = session.scalar(taken.returning(Leader.term))
        self._until = 0.0 if term is None else asked_at + self.seconds
        return term

    def present(self) -> str | None:
        """Who holds the lease, or held it last."""
        with self.database.read() as session:
            return session.scalar(select(Leader.holder).where(Leader.name == self.name))

    def give_back(self) -> None:
        """Lets another one lead at once. Terms go on counting."""
        self._until = 0.0
        mine = (Leader.name == self.name) & (Leader.holder == self.holder)
        with self.database.write() as session:
            session.execute(update(Leader).where(mine).values(holder="", expires_at=0))
