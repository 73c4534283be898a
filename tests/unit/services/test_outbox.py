"""What webhooks are told: every end once, in the same transaction, until it was heard or is given up."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from services import addresses, audit, deliveries, jobs, outbox, webhooks
from services.context import Context
from services.database import Database
from services.errors import Conflict, Forbidden, NotFound
from services.settings import Settings
from services.tables import AuditEntry, Delivery, Job
from services.tokens import Principal
from services.webhooks import NewWebhook, WebhookChange
from tests.support.clocked import Clock
from tests.unit.services.test_jobs import claim, parent_of, submit

ADA, BOB, ROOT = Principal("ada", "researcher"), Principal("bob", "researcher"), Principal("root", "admin")
URL = "https://lab.example.org/hooks"
ALL = ("succeeded", "failed", "cancelled")
OFF, ON = WebhookChange(active=False), WebhookChange(active=True)


def webhook(database: Database, principal: Principal = ADA, **changes: Any) -> str:
    asked = NewWebhook(**{"url": URL, "states": ALL, **changes})
    return str(webhooks.create(database, principal, asked, ())[0]["id"])


def told(database: Database, webhook_id: str, principal: Principal = ROOT) -> list[dict[str, Any]]:
    """Oldest first."""
    return webhooks.deliveries(database, principal, webhook_id).items[::-1]


def events(database: Database, webhook_id: str) -> list[tuple[str, str]]:
    return [(each["event"], each["job"]) for each in told(database, webhook_id)]


@pytest.fixture
def context(database: Database, tmp_path: Path) -> Context:
    made = Context(Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_DATABASE_URL": database.url}))
    vars(made)["database"] = database  # with the clock that the test moves
    return made


# ── What is told ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_way_to_end_is_told_once(database: Database) -> None:
    hook = webhook(database)
    succeeded, failed, cancelled, idle = (submit(database) for _ in range(4))
    jobs.finish(database, claim(database).lease, {}, [])
    jobs.fail(database, claim(database).lease, "stalled", "it hung")
    taken = claim(database)
    jobs.cancel(database, cancelled)
    jobs.confirm_cancel(database, taken.lease)
    jobs.cancel(database, idle)
    assert events(database, hook) == [
        ("job.succeeded", succeeded),
        ("job.failed", failed),
        ("job.cancelled", cancelled),
        ("job.cancelled", idle),
    ]
    content = told(database, hook)[1]["content"]["job"]
    assert (content["reason"], content["error"], content["dataset"]) == ("stalled", "it hung", "lesions")
    assert content["finished_at"].endswith("Z")


def test_an_end_whose_acknowledgement_was_lost_is_not_told_again(database: Database) -> None:
    hook = webhook(database)
    submit(database)
    lease = claim(database).lease
    jobs.finish(database, lease, {}, [])
    jobs.finish(database, lease, {}, [])
    assert len(events(database, hook)) == 1


def test_a_try_that_is_followed_by_another_is_no_end(database: Database, clock: Clock) -> None:
    hook = webhook(database)
    job_id = submit(database)
    for _ in range(2):
        claim(database)
        clock.forward(100)
        assert jobs.expire_leases(database) == [job_id]
        assert events(database, hook) == []
        clock.forward(100)
    claim(database)
    clock.forward(100)
    jobs.expire_leases(database)
    assert events(database, hook) == [("job.failed", job_id)]


def test_of_a_family_the_parent_is_told_and_children_only_where_that_was_asked_for(database: Database) -> None:
    plain, all_of_them = webhook(database), webhook(database, children=True)
    parent = parent_of(database, 3)
    jobs.fail(database, claim(database).lease, "stalled", "it hung")
    jobs.finish(database, claim(database).lease, {}, [])
    jobs.finish(database, claim(database).lease, {}, [])
    assert events(database, plain) == [("job.failed", parent)]
    found = events(database, all_of_them)
    assert sorted(event for event, _ in found) == ["job.failed", "job.failed", "job.succeeded", "job.succeeded"]
    assert len({job for _, job in found}) == 4


def test_followers_that_end_with_what_they_follow_are_told_too(database: Database) -> None:
    hook = webhook(database)
    first = submit(database)
    follower = submit(database, after=[first])
    jobs.cancel(database, first)
    assert events(database, hook) == [("job.cancelled", first), ("job.cancelled", follower)]


def test_one_hears_of_ones_own_jobs_alone_and_of_the_ends_that_were_asked_for(database: Database) -> None:
    of_bob, of_all = webhook(database, BOB), webhook(database, ROOT, everyone=True)
    failures = webhook(database, states=["failed"])
    job_id = submit(database, "ada")
    jobs.finish(database, claim(database).lease, {}, [])
    assert events(database, of_all) == [("job.succeeded", job_id)]
    assert events(database, of_bob) == events(database, failures) == []


def test_an_end_and_what_is_told_of_it_are_written_together_or_not_at_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = webhook(database)
    submit(database)
    lease = claim(database).lease
    written: list[int] = []

    def tell_and_die(session: Session, job_id: str) -> None:
        tell_end(session, job_id)
        written.extend(session.scalars(select(Delivery.tries)).all())
        raise ConnectionError

    tell_end = outbox.tell_end
    monkeypatch.setattr(outbox, "tell_end", tell_and_die)
    with pytest.raises(ConnectionError):
        jobs.finish(database, lease, {}, [])
    assert written == [0]
    assert events(database, hook) == []
    with database.read() as session:
        assert session.scalar(select(Job.state)) == "running"


# ── Whose they are ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_yours_does_not_exist(database: Database) -> None:
    hook = webhook(database, BOB)
    delivery = webhooks.ping(database, BOB, hook)["id"]
    own = webhook(database, ADA)
    for act in (
        lambda: webhooks.get(database, ADA, hook),
        lambda: webhooks.remove(database, ADA, hook),
        lambda: webhooks.change(database, ADA, hook, OFF),
        lambda: webhooks.change(database, ADA, hook, WebhookChange(everyone=True)),
        lambda: webhooks.ping(database, ADA, hook),
        lambda: webhooks.deliveries(database, ADA, hook),
        lambda: webhooks.repeat(database, ADA, hook, delivery),
        lambda: webhooks.repeat(database, ADA, own, delivery),
    ):
        with pytest.raises(NotFound):
            act()
    assert webhooks.get(database, BOB, hook)["active"]
    assert [each["id"] for each in webhooks.list_all(database, ADA)] == [own]
    assert len(webhooks.list_all(database, ROOT)) == 2


def test_what_was_changed_of_a_webhook_stands_in_the_audit_trail_and_nothing_where_nothing_was(
    database: Database,
) -> None:
    hook = webhook(database)
    webhooks.change(database, ADA, hook, WebhookChange(active=True, states=ALL, children=False))  # as it is
    webhooks.change(database, ROOT, hook, WebhookChange(active=False, states=["failed"], children=False))
    with database.read() as session:
        entries = session.execute(select(AuditEntry.action, AuditEntry.user, AuditEntry.detail)).all()
    made, changed = [tuple(entry) for entry in entries]
    assert made[:2] == ("webhook.create", "ada")
    assert changed[:2] == ("webhook.change", "root")
    assert json.loads(changed[2]) == {"active": False, "states": ["failed"]}
    assert audit.verify(database).broken is None


def test_only_an_admin_has_a_webhook_hear_of_all_jobs_and_nothing_is_changed_where_that_is_refused(
    database: Database,
) -> None:
    hook = webhook(database)
    with pytest.raises(Forbidden, match="only an admin's"):
        webhooks.change(database, ADA, hook, WebhookChange(active=False, everyone=True))
    assert webhooks.get(database, ADA, hook) == {**webhooks.get(database, ADA, hook), "active": True, "everyone": False}
    assert webhooks.change(database, ROOT, hook, WebhookChange(everyone=True))["everyone"]
    assert not webhooks.change(database, ADA, hook, WebhookChange(everyone=False))["everyone"]


@pytest.mark.parametrize("asked", [ON, WebhookChange(active=True, states=["failed"]), WebhookChange(children=True)])
def test_who_is_no_admin_any_more_has_no_webhook_hear_of_all_jobs_again_or_of_more(
    database: Database, asked: WebhookChange
) -> None:
    hook = webhook(database, Principal("ada", "admin"), everyone=True, states=["succeeded"])
    if asked.active:
        webhooks.change(database, ROOT, hook, OFF)
    before = webhooks.get(database, ROOT, hook)
    with pytest.raises(Forbidden):
        webhooks.change(database, ADA, hook, asked)
    assert webhooks.get(database, ROOT, hook) == before
    assert not webhooks.change(database, ADA, hook, OFF)["active"]
    assert webhooks.change(database, ADA, hook, WebhookChange(active=True, everyone=False))["active"]


def test_who_made_and_removed_a_webhook_stands_in_the_audit_trail(database: Database) -> None:
    hook = webhook(database)
    webhooks.remove(database, ROOT, hook)
    with database.read() as session:
        entries = session.execute(select(AuditEntry.action, AuditEntry.subject, AuditEntry.user)).all()
    assert [tuple(entry) for entry in entries] == [("webhook.create", hook, "ada"), ("webhook.remove", hook, "root")]
    assert audit.verify(database).broken is None


def test_the_number_of_webhooks_of_a_user_is_bounded(database: Database) -> None:
    for _ in range(webhooks.MOST_OF_USER):
        webhook(database)
    with pytest.raises(Conflict, match="remove one"):
        webhook(database)
    webhook(database, BOB)


# ── Off and on ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_webhook_hears_of_what_it_was_changed_to_and_of_no_end_while_it_is_off(database: Database) -> None:
    hook, other = webhook(database), webhook(database)
    webhooks.change(database, ADA, hook, OFF)
    missed = submit(database)
    jobs.cancel(database, missed)
    assert events(database, hook) == []
    assert events(database, other) == [("job.cancelled", missed)]
    webhooks.change(database, ADA, hook, WebhookChange(active=True, states=["failed"]))
    jobs.cancel(database, submit(database))
    failed = submit(database)
    jobs.fail(database, claim(database).lease, "stalled", "it hung")
    assert events(database, hook) == [("job.failed", failed)]


def test_what_waits_is_held_while_its_webhook_is_off_and_tried_as_soon_as_it_is_on(
    context: Context, outside: "Outside", clock: Clock
) -> None:
    database, hook, other = context.database, webhook(context.database), webhook(context.database)
    webhooks.ping(database, ADA, hook)
    outside.answer = 500
    assert deliver_all(context) == 1
    webhooks.ping(database, ADA, hook)  # one that was never tried, too
    webhooks.change(database, ADA, hook, OFF)
    clock.forward(1e6)
    assert not outbox.is_due(database), "else whoever delivers would look again and again"
    assert outbox.claim(database) is None
    assert [(each["state"], each["tries"], each["next_at"]) for each in told(database, hook)] == [
        ("waiting", 1, None),
        ("waiting", 0, None),
    ]
    outside.answer = 200
    webhooks.ping(database, ADA, other)
    assert deliver_all(context) == 1, "others go on"
    assert outbox.forget(database, 1) == 0, "what is held is not forgotten"
    webhooks.change(database, ADA, hook, ON)
    assert deliver_all(context) == 2
    assert [(each["state"], each["tries"]) for each in told(database, hook)] == [("delivered", 2), ("delivered", 1)]


def test_what_would_be_tried_hours_later_is_tried_when_its_webhook_is_on_again_with_the_tries_that_it_had(
    context: Context, outside: "Outside", clock: Clock
) -> None:
    hook, other = webhook(context.database), webhook(context.database)
    outside.answer = 500
    webhooks.ping(context.database, ADA, hook)
    for _ in range(outbox.MOST_TRIES - 1):
        assert deliver_all(context) == 1
        clock.forward(15 * 3600)
    webhooks.ping(context.database, ADA, other)
    assert deliver_all(context) == 2
    assert told(context.database, hook)[0]["state"] == "given_up"
    later = webhooks.ping(context.database, ADA, hook)["id"]
    for _ in range(8):
        assert deliver_all(context) >= 1
        clock.forward(7 * 3600)
    deliver_all(context)  # the next try is 12 h later
    before = next(each for each in told(context.database, hook) if each["id"] == later)
    webhooks.change(context.database, ADA, hook, OFF)
    webhooks.change(context.database, ADA, hook, ON)
    assert deliver_all(context) == 1
    assert told(context.database, hook)[0]["state"] == "given_up", "what was given up stays so"
    after = next(each for each in told(context.database, hook) if each["id"] == later)
    assert (before["state"], before["tries"]) == ("waiting", outbox.MOST_TRIES - 1)
    assert (after["state"], after["tries"]) == ("given_up", outbox.MOST_TRIES)


def test_a_try_that_is_under_way_ends_as_it_ends_and_is_held_only_where_it_failed(
    context: Context, outside: "Outside"
) -> None:
    hook = webhook(context.database)
    for _ in range(2):
        webhooks.ping(context.database, ADA, hook)
    heard, failed = outbox.claim(context.database), outbox.claim(context.database)
    assert heard is not None
    assert failed is not None
    webhooks.change(context.database, ADA, hook, OFF)
    outbox.settle(context.database, heard.delivery, 200, None)
    outbox.settle(context.database, failed.delivery, 500, "it answered 500", delays=(-1,))
    assert [each["state"] for each in told(context.database, hook)] == ["delivered", "waiting"]
    assert outbox.claim(context.database) is None
    webhooks.change(context.database, ADA, hook, ON)
    assert deliver_all(context) == 1


def test_what_is_under_way_is_not_begun_again_by_a_switch_whether_first_or_later_try(
    database: Database, clock: Clock
) -> None:
    hook = webhook(database)
    webhooks.ping(database, ADA, hook)
    for tries in (1, 2):
        under_way = outbox.claim(database)
        assert under_way is not None
        for change in (OFF, ON):
            webhooks.change(database, ADA, hook, change)
        assert outbox.claim(database) is None, "its receiver is being called, and would hear it twice"
        outbox.settle(database, under_way.delivery, 500, "it answered 500")
        (now,) = told(database, hook)
        assert (now["state"], now["tries"], now["status"]) == ("waiting", tries, 500)
        for change in (OFF, ON):
            webhooks.change(database, ADA, hook, change)
        assert outbox.is_due(database), "what waits after a failure is tried at once"


def test_a_webhook_that_is_off_is_neither_pinged_nor_told_again(context: Context, outside: "Outside") -> None:
    hook = webhook(context.database)
    delivery = webhooks.ping(context.database, ADA, hook)["id"]
    assert deliver_all(context) == 1
    webhooks.change(context.database, ADA, hook, OFF)
    with pytest.raises(Conflict, match="switch it on"):
        webhooks.ping(context.database, ADA, hook)
    with pytest.raises(Conflict, match="switch it on"):
        webhooks.repeat(context.database, ADA, hook, delivery)
    assert [each["state"] for each in told(context.database, hook)] == ["delivered"]


def test_no_number_of_failures_switches_a_webhook_off(context: Context, outside: "Outside") -> None:
    hook = webhook(context.database)
    outside.answer = 410
    for _ in range(30):
        webhooks.ping(context.database, ADA, hook)
    assert deliver_all(context) == 30
    assert webhooks.get(context.database, ADA, hook)["active"]


# ── Delivering ────────────────────────────────────────────────────────────────────────────────────────────────────


class Outside:
    """Stands where calls would leave this machine; answers what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer = 200
        self.calls: list[tuple[str, bytes, dict[str, str]]] = []
        monkeypatch.setattr(addresses, "post", self._post)

    def _post(self, url: str, body: bytes, headers: dict[str, str], **_: Any) -> int:
        self.calls.append((url, body, headers))
        return self.answer


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    return Outside(monkeypatch)


def deliver_all(context: Context) -> int:
    """Delivers what is due now; how much that was."""
    number = 0
    while (claimed := outbox.claim(context.database)) is not None:
        deliveries.deliver(context, claimed)
        number += 1
    return number


def test_what_is_sent_can_be_verified_by_who_has_the_secret(context: Context, outside: Outside) -> None:
    made, secret = webhooks.create(context.database, ADA, NewWebhook(URL, ALL), ())
    webhooks.ping(context.database, ADA, made["id"])
    assert deliver_all(context) == 1
    (url, body, headers) = outside.calls[0]
    assert url == URL
    signed = f"{headers['Webhook-Id']}.{headers['Webhook-Timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert headers["Webhook-Signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert json.loads(body)["id"] == headers["Webhook-Id"]
    assert told(context.database, made["id"])[0]["state"] == "delivered"
    assert deliver_all(context) == 0


def test_the_lines_that_the_documentation_gives_tell_genuine_calls_from_others(
    context: Context, outside: Outside
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    told: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], told)  # noqa: S102 - our own page
    made, secret = webhooks.create(context.database, ADA, NewWebhook(URL, ALL), ())
    webhooks.ping(context.database, ADA, made["id"])
    deliver_all(context)
    _, body, headers = outside.calls[0]
    assert told["is_genuine"](secret, headers, body)
    assert not told["is_genuine"](secret, headers, body + b" ")
    assert not told["is_genuine"]("whsec_" + base64.b64encode(b"other").decode(), headers, body)
    late = {**headers, "Webhook-Timestamp": str(int(headers["Webhook-Timestamp"]) - 3600)}
    late["Webhook-Signature"] = deliveries.signature(secret, late["Webhook-Id"], int(late["Webhook-Timestamp"]), body)
    assert not told["is_genuine"](secret, late, body)


def test_the_signature_is_that_of_the_published_example() -> None:
    """Of the specification of Standard Webhooks."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert deliveries.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == expected


def test_what_fails_is_tried_again_ever_later_the_same_until_it_is_given_up(
    context: Context, outside: Outside, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    hook = webhook(context.database)
    webhooks.ping(context.database, ADA, hook)
    outside.answer = 500
    waits = []
    while told(context.database, hook)[0]["state"] == "waiting":
        with context.database.read() as session:
            due = session.scalars(select(Delivery.next_at)).one()
        waits.append((due - clock.now) / 1000)
        if due > clock.now:
            clock.now = due - 1
            assert deliver_all(context) == 0
        clock.now = due
        assert deliver_all(context) == 1
    assert len(waits) == outbox.MOST_TRIES
    for wait, delay in zip(waits[1:], outbox.DELAYS, strict=True):
        assert 0.79 * delay <= wait <= 1.21 * delay
    assert len({(headers["Webhook-Id"], body) for _, body, headers in outside.calls}) == 1
    last = told(context.database, hook)[0]
    assert (last["state"], last["tries"], last["status"]) == ("given_up", outbox.MOST_TRIES, 500)
    assert "given up after 10 tries: it answered 500" in caplog.text
    clock.forward(1e6)
    assert deliver_all(context) == 0


def test_delays_differ_so_that_not_all_come_back_at_once(context: Context, outside: Outside) -> None:
    hook = webhook(context.database)
    outside.answer = 503
    for _ in range(20):
        webhooks.ping(context.database, ADA, hook)
    deliver_all(context)
    assert len({each["next_at"] for each in told(context.database, hook)}) > 10


def test_a_delivery_that_was_given_up_can_be_repeated_under_its_id(
    context: Context, outside: Outside, clock: Clock
) -> None:
    hook = webhook(context.database)
    delivery = webhooks.ping(context.database, ADA, hook)["id"]
    outside.answer = 410
    assert deliver_all(context) == 1
    assert told(context.database, hook)[0]["state"] == "given_up"  # gone, it says itself
    outside.answer = 200
    again = webhooks.repeat(context.database, ADA, hook, delivery)
    assert (again["id"], again["state"]) == (delivery, "waiting")
    assert deliver_all(context) == 1
    last = told(context.database, hook)[0]
    assert (last["state"], last["tries"], last["status"]) == ("delivered", 2, 200)
    assert outside.calls[0][2]["Webhook-Id"] == outside.calls[1][2]["Webhook-Id"] == delivery


def test_what_a_dead_sender_had_is_taken_by_another_and_its_late_word_counts_for_nothing(
    database: Database, clock: Clock
) -> None:
    hook = webhook(database)
    webhooks.ping(database, ADA, hook)
    dead = outbox.claim(database)
    assert dead is not None
    assert outbox.claim(database) is None
    clock.forward(outbox.CLAIM_SECONDS + 1)
    alive = outbox.claim(database)
    assert alive is not None
    assert alive.delivery.id == dead.delivery.id
    outbox.settle(database, dead.delivery, None, "too late")
    assert told(database, hook)[0]["error"] is None
    outbox.settle(database, alive.delivery, 200, None)
    assert told(database, hook)[0]["state"] == "delivered"


def test_a_delivery_whose_senders_all_die_is_given_up_too(context: Context, outside: Outside, clock: Clock) -> None:
    hook = webhook(context.database)
    webhooks.ping(context.database, ADA, hook)
    for _ in range(outbox.MOST_TRIES):
        assert outbox.claim(context.database) is not None
        clock.forward(outbox.CLAIM_SECONDS + 1)
    assert deliver_all(context) == 1
    assert told(context.database, hook)[0]["state"] == "given_up"
    assert outside.calls == []


def test_a_webhook_that_is_busy_is_passed_over_for_others(database: Database) -> None:
    slow, other = webhook(database), webhook(database)
    webhooks.ping(database, ADA, slow)
    webhooks.ping(database, ADA, other)
    claimed = outbox.claim(database, [slow])
    assert claimed is not None
    assert claimed.delivery.webhook_id == other
    assert outbox.claim(database, [slow]) is None


def test_nothing_is_sent_to_a_webhook_that_was_removed(context: Context, outside: Outside) -> None:
    hook = webhook(context.database)
    webhooks.ping(context.database, ADA, hook)
    claimed = outbox.claim(context.database)
    assert claimed is not None
    webhooks.remove(context.database, ADA, hook)
    deliveries.deliver(context, claimed)
    with context.database.write() as session:
        outbox.add_ping(session, hook)  # as an end at the same moment would
    assert deliver_all(context) == 1
    assert outbox.forget(context.database, 90) == 1
    assert len(outside.calls) == 1


def test_an_allowance_that_was_withdrawn_holds_for_webhooks_that_were_made_before(context: Context) -> None:
    asked = NewWebhook("http://127.0.0.1:9/", ALL)
    hook = str(webhooks.create(context.database, ADA, asked, ["127.0.0.1"])[0]["id"])
    webhooks.ping(context.database, ADA, hook)
    deliver_all(context)
    assert "BGPANET_WEBHOOK_HOSTS" in told(context.database, hook)[0]["error"]


def test_what_ended_long_ago_is_forgotten_and_what_waits_is_not(
    context: Context, outside: Outside, clock: Clock
) -> None:
    hook = webhook(context.database)
    webhooks.ping(context.database, ADA, hook)
    deliver_all(context)
    clock.forward(91 * 24 * 3600)
    waiting = webhooks.ping(context.database, ADA, hook)["id"]
    assert outbox.forget(context.database, 90) == 1
    assert [each["id"] for each in told(context.database, hook)] == [waiting]
