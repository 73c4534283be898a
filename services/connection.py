"""HTTP to one service: what may be repeated is repeated, and what is refused becomes an error that says what to do."""

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from services.client_errors import Missing, Unreachable, refusal, seconds_to_wait

if TYPE_CHECKING:
    import httpx

NAME = re.compile(r"[A-Za-z0-9._-]+(@[0-9]+)?")
TRIES = 5
FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds between two tries, growing, each drawn between half and one and a half
PATIENCE_SECONDS = 60.0  # that one request may wait for its tries in all, whatever `Retry-After` asks for
LATER = (429, 502, 503, 504)
SAFE = ("GET", "HEAD", "PUT", "DELETE")  # the same twice is the same once
KEY = "Idempotency-Key"


class Limits(NamedTuple):
    """How long a connection waits, in seconds, and how often it tries."""

    connect: float = 30.0
    read: float = 600.0
    tries: int = TRIES
    patience: float = PATIENCE_SECONDS


class Connection:
    """Sends requests with a token to the API at `url`."""

    def __init__(self, url: str, token: str, limits: Limits | None = None) -> None:
        # Here, not above: `bgpanet --help` and completion of words need no HTTP, whose import takes as long as they.
        import httpx

        self.url, self.limits = url.rstrip("/"), limits or Limits()
        timeout = httpx.Timeout(self.limits.connect, read=self.limits.read)
        self._bare = httpx.Client(timeout=timeout)
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=f"{self.url}/api/v1/", headers=headers, timeout=timeout)
        self._lost: type[Exception] = httpx.TransportError

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()
        self._bare.close()

    def json(self, method: str, path: str, *, repeatable: bool = False, **arguments: Any) -> dict[str, Any]:
        """Asks for `path` under /api/v1; arguments: those of httpx. Returns the JSON object of the answer, {} if none.

        A POST or PATCH is repeated only with an idempotency key, or where it is `repeatable`: where doing it twice
        comes to the same. Raises ApiError.
        """
        headers: Mapping[str, str] = arguments.get("headers") or {}
        answer = self._tried(self._http, method, path, repeatable or method in SAFE or KEY in headers, arguments)
        if not answer.content:
            return {}
        try:
            return dict(answer.json())
        except (ValueError, TypeError):
            told = f"{self.url} answered with something else than JSON; is it the address of this service?"
            raise Unreachable(told) from None

    def put_elsewhere(self, address: str, content: bytes) -> None:
        """PUT to a store's own address, which must not see our token. Raises ApiError."""
        self._tried(self._bare, "PUT", address, True, {"content": content})

    @contextmanager
    def stream(
        self, path: str, query: Mapping[str, Any] | None, headers: Mapping[str, str], silence: float | None = None
    ) -> Iterator["httpx.Response"]:
        """A GET whose body is read bit by bit, wherever it is redirected to; not repeated. Raises ApiError, also where
        the line breaks or is silent for `silence` seconds while it is read."""
        import httpx

        timeout = httpx.Timeout(self.limits.connect, read=silence or self.limits.read)
        options: dict[str, Any] = {"params": query, "headers": headers, "timeout": timeout, "follow_redirects": True}
        try:
            with self._http.stream("GET", path, **options) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                yield answer
        except self._lost as error:
            raise self._unreachable(error) from None

    def _tried(
        self, http: "httpx.Client", method: str, path: str, may_repeat: bool, arguments: Mapping[str, Any]
    ) -> "httpx.Response":
        waited = 0.0
        for number in range(self.limits.tries):
            error: Exception | None = None
            try:
                answer = http.request(method, path, **arguments)
            except self._lost as lost:
                error, delay = lost, _delay(number)
            else:
                if not answer.is_error:
                    return answer
                error = _refusal(answer)
                if answer.status_code not in LATER:
                    raise error
                delay = max(_delay(number), seconds_to_wait(answer.headers.get("Retry-After")) or 0.0)
            waited += delay
            if not may_repeat or number + 1 == self.limits.tries or waited > self.limits.patience:
                break
            sleep(delay)
        assert error is not None  # noqa: S101 - every other way returned or raised
        raise self._unreachable(error) if isinstance(error, self._lost) else error

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self.url} does not answer ({error}); is the service up? `bgpanet up` starts one")


def path_part(text: str) -> str:
    """A name as one part of a path. Raises Missing where no name is like that, so that it leads nowhere else."""
    if not NAME.fullmatch(text) or not text.strip("."):
        detail = f"there is no {text!r}; a name has letters, digits, dots, dashes, underscores"
        raise Missing(404, {"detail": detail})
    return text


def _delay(number: int) -> float:
    drawn = random.uniform(0.5, 1.5)  # noqa: S311 - so that many clients do not come back at the same moment
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2**number) * drawn)


def _refusal(answer: "httpx.Response") -> Exception:
    try:
        problem = dict(answer.json())
    except (ValueError, TypeError):
        problem = {"detail": f"HTTP {answer.status_code} from {answer.url.host}"}
    return refusal(answer.status_code, problem, answer.headers.get("Retry-After"))
