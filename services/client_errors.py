"""What a client is told where the service did not do what was asked.

ApiError                every problem of the answer, and what to do about it
├── Unreachable             nothing answers, or the answer is none of this service's (`status` 0)
├── ArrivedDamaged          bytes are not those that were announced (`status` 0)
├── TokenRefused            401: nobody knows the token, or it was revoked
├── NotAllowed              403: known, but this is for others
├── Missing                 404: it does not exist, or is not yours
├── Contradicted            409: it contradicts what is there
├── TooBusy                 429, 503: later; `retry_after` says in how many seconds
├── Broken                  another 5xx: the service failed
└── Invalid                 another 4xx: the request is wrong, with every wrong field
"""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any


class ApiError(Exception):
    """The service refused a request, or could not be reached (`status` 0). The text says what to do."""

    advice = ""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status, self.problem, self.retry_after = status, dict(problem), retry_after
        lines = [str(problem.get("detail") or problem.get("title") or f"HTTP {status}")]
        lines += [f"  {error['field'] or 'request'}: {error['detail']}" for error in problem.get("errors") or ()]
        super().__init__("\n".join([*lines, *filter(None, [self._advice()])]))

    def _advice(self) -> str:
        return self.advice


class Unreachable(ApiError):
    """Nothing answers, or what answers is not this service."""

    def __init__(self, detail: str) -> None:
        super().__init__(0, {"detail": detail})


class ArrivedDamaged(ApiError):
    """Bytes are not those that were announced."""

    def __init__(self, detail: str) -> None:
        super().__init__(0, {"detail": detail})


class TokenRefused(ApiError):
    """Nobody knows the token, or it was revoked."""

    advice = "set BGPANET_TOKEN to a token that is valid; an admin makes one with `bgpanet token create`"


class NotAllowed(ApiError):
    """The token is known, but this is for others."""

    advice = "ask an admin for it, or for a token that may"


class Missing(ApiError):
    """It does not exist, or is not yours."""


class Contradicted(ApiError):
    """It contradicts what is there."""


class TooBusy(ApiError):
    """Later there is room again."""

    def _advice(self) -> str:
        return "try again later" if self.retry_after is None else f"try again in {self.retry_after:.0f} s"


class Broken(ApiError):
    """The service failed."""

    advice = "try again; if it stays so, tell whoever runs the service"


class Invalid(ApiError):
    """The request is wrong. `problem["errors"]` has every wrong field."""


KINDS: Mapping[int, type[ApiError]] = {
    401: TokenRefused,
    403: NotAllowed,
    404: Missing,
    409: Contradicted,
    429: TooBusy,
    503: TooBusy,
}


class JobFailed(Exception):
    """A job that was waited for ended without success. `job` is its last state."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = dict(job)
        super().__init__(f"job {job['id']} {job['state']}: {job['reason'] or ''} {job['error'] or ''}".strip())


def refusal(status: int, problem: Mapping[str, Any], retry_after: str | None = None) -> ApiError:
    """The error that an answer is. retry_after: the header, as it came."""
    kind = KINDS.get(status, Broken if status >= 500 else Invalid)
    return kind(status, problem, seconds_to_wait(retry_after))


def seconds_to_wait(retry_after: str | None) -> float | None:
    """What a `Retry-After` asks for, a number of seconds or a date; None where it asks for nothing."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
