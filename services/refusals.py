"""What people may not do goes into the audit trail, too: as much of it as does not fill the trail."""

import logging

from sqlalchemy.exc import SQLAlchemyError

from services import audit
from services.audit import Act
from services.database import Database
from services.throttle import Throttle
from services.tokens import Principal

AT_ONCE, PER_SECOND = 60, 0.2  # refusals of a token that are noted; the rest stands in the log

log = logging.getLogger(__name__)


def is_refusal(method: str, status: int) -> bool:
    """Whether somebody was refused: 403, and 404 where they would have changed something. A reader's 404 tells of no
    wish to do anything, and pages that are kept open ask for what was removed again and again."""
    return status == 403 or (status == 404 and method not in ("GET", "HEAD", "OPTIONS"))


class Refusals:
    """Writes refusals down, those of each token at most so often."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._throttle = Throttle(PER_SECOND, AT_ONCE)

    def note(self, principal: Principal, method: str, path: str, status: int) -> None:
        """Notes one. The answer goes out as it is even where that fails: nothing was done."""
        log.warning("%s was refused %s %s: %s", principal.user, method, path, status)
        if self._throttle.take(principal.token_id or principal.user):
            return
        try:
            detail = {"method": method, "status": status}
            audit.note(self._database, Act(principal, "request", path, detail=detail, outcome="refused"))
        except SQLAlchemyError as error:
            log.error("a refusal could not be noted: %s", error)
