"""Tells webhooks what the outbox holds for them: signed, until they have heard it or are given up.

Runs beside every scheduler, whichever leads. Headers and signature are those of Standard Webhooks, for which most
languages have a library that verifies them.
"""

import base64
import hashlib
import hmac
import json
import logging
import ssl
import threading
import time
from collections import Counter
from collections.abc import Collection
from importlib.metadata import version

import httpcore
from sqlalchemy.exc import SQLAlchemyError

from services import addresses, outbox, webhooks
from services.context import Context
from services.errors import ForbiddenAddress
from services.outbox import Claimed

LOOK_SECONDS = 1.0  # between two looks for what is due
TRY_SECONDS = 15.0  # for connecting, sending, and the status of the answer
AT_ONCE = 8
AT_ONCE_OF_WEBHOOK = 2  # so that one that is slow to answer does not hold up the others
GONE = 410

log = logging.getLogger(__name__)


def signature(secret: str, delivery_id: str, at: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256, base64, of id, time (seconds since 1970) and body, joined by dots."""
    key = base64.b64decode(secret.removeprefix(webhooks.SECRET_PREFIX))
    signed = f"{delivery_id}.{at}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def attempt(claimed: Claimed, allowed: Collection[str], tls: ssl.SSLContext | None = None) -> tuple[int | None, str]:
    """Tries a delivery once. Returns the answer's status, None: there was none; and what is wrong, empty: nothing."""
    delivery, webhook = claimed.delivery, claimed.webhook
    if webhook is None:
        return None, "the webhook was removed"
    body = json.dumps(webhooks.content_of(delivery), ensure_ascii=False).encode()
    at = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"bgpanet-service/{version('bgpanet-service')}",
        "Webhook-Id": delivery.id,
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": signature(webhook.secret, delivery.id, at, body),
    }
    try:
        # Also settings may have changed since it was made.
        if (problem := addresses.problem_of(webhook.url, allowed)) is not None:
            raise ForbiddenAddress(f"its address {problem}")
        status = addresses.post(webhook.url, body, headers, allowed=allowed, seconds=TRY_SECONDS, tls=tls)
    except ForbiddenAddress as error:
        return None, str(error)
    except httpcore.TimeoutException:
        return None, f"it did not answer within {TRY_SECONDS:.0f} s"
    except (OSError, httpcore.NetworkError, httpcore.ProtocolError) as error:
        return None, f"it could not be called: {error or type(error).__name__}"
    if 200 <= status < 300:
        return status, ""
    if 300 <= status < 400:
        return status, f"it answered {status}; redirects are not followed, name the address that it leads to"
    return status, f"it answered {status}"


def deliver(context: Context, claimed: Claimed) -> None:
    """Tries a delivery and writes down what came of it. Raises SQLAlchemyError: it is tried again later."""
    delivery = claimed.delivery
    if delivery.tries_left < 0:
        status, error = None, "nobody lived to see the end of its last try"
    else:
        status, error = attempt(claimed, context.settings.webhook_hosts)
    final = claimed.webhook is None or status == GONE
    state = outbox.settle(context.database, delivery, status, error or None, final=final)
    if state == "given_up":
        where = claimed.webhook.url if claimed.webhook else "its webhook"
        log.warning("delivery %s to %s is given up after %d tries: %s", delivery.id, where, delivery.tries, error)


class Delivering(threading.Thread):
    """Delivers what is due until `stopping` is set. What is under way then counts as lost, and is tried again later."""

    def __init__(self, context: Context, stopping: threading.Event) -> None:
        super().__init__(name="delivering", daemon=True)
        self._context, self._stopping = context, stopping
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()  # by webhook

    def run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                if outbox.is_due(self._context.database):
                    self._hand_out()
            except SQLAlchemyError as error:
                log.warning("deliveries wait for the database: %s", error)

    def _hand_out(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                busy = [webhook for webhook, number in self._under_way.items() if number >= AT_ONCE_OF_WEBHOOK]
                if self._under_way.total() >= AT_ONCE:
                    return
            claimed = outbox.claim(self._context.database, busy)
            if claimed is None:
                return
            with self._lock:
                self._under_way[claimed.delivery.webhook_id] += 1
            threading.Thread(target=self._deliver, args=(claimed,), name="delivery", daemon=True).start()

    def _deliver(self, claimed: Claimed) -> None:
        try:
            deliver(self._context, claimed)
        except SQLAlchemyError as error:
            log.warning("the end of delivery %s was not written, it is repeated: %s", claimed.delivery.id, error)
        finally:
            with self._lock:
                self._under_way[claimed.delivery.webhook_id] -= 1
