"""What the state machine promises when many act at once, on real PostgreSQL; the same on SQLite."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from services import jobs, retention, views
from services.artifacts import open_store
from services.claims import Batch, Claim, NewArtifact, NewJob, StoredFile
from services.context import Context
from services.database import Database
from services.errors import Conflict, StaleAttempt
from services.ids import new_id
from services.leadership import Leadership
from services.migration import config, migrate
from services.order import Offer
from services.settings import Settings
from services.tables import Artifact, Base, Checkpoint, Dataset, Job, LogLine
from services.tokens import Principal
from tests.support.at_once import at_once
from tests.support.databases import migrated_url
from tests.unit.services.test_migrations import check_first_tables, fill_first_tables

ADMIN = Principal("ada", "admin")
THREADS = 12


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = Database(migrated_url(request, tmp_path))
    with made.write() as session:
        session.execute(
            insert(Dataset).values(
                id="d",
                name="lesions",
                format="ham10000",
                digest="0" * 64,
                synthetic=True,
                classes=[],
                images=1,
                groups=1,
                group_unit="lesion",
                class_counts=[],
                findings=[],
                files={},
                created_by="ada",
                created_at=0,
            )
        )
    yield made
    made.close()


def new_job(**changes: Any) -> NewJob:
    values = {"kind": "train", "name": "a job", "spec": {"x": 1}, "dataset_id": "d", "created_by": "ada", **changes}
    return NewJob(**values)


def test_the_migrated_schema_is_that_of_the_code(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_same_submission_many_times_at_once_is_one_job(database: Database) -> None:
    results = at_once([lambda: jobs.submit(database, new_job(idempotency_key="k"))] * THREADS)
    assert len({job_id for job_id, _ in results}) == 1
    assert sum(created for _, created in results) == 1


def test_many_workers_at_once_never_get_the_same_job(database: Database) -> None:
    submitted = {jobs.submit(database, new_job())[0] for _ in range(THREADS // 2)}
    claims = at_once([lambda n=n: jobs.claim(database, f"w{n}", Offer(["any"]), 30) for n in range(THREADS)])  # type: ignore[misc]
    got = [claim.lease.job_id for claim in claims if claim is not None]
    # On PostgreSQL a claim that meets a locked row looks past it; none is given twice, and the rest stay claimable.
    assert len(got) == len(set(got))
    while (claim := jobs.claim(database, "late", Offer(["any"]), 30)) is not None:
        got.append(claim.lease.job_id)
    assert sorted(got) == sorted(submitted)


def test_the_last_two_children_that_end_at_once_close_their_parent(database: Database) -> None:
    for _ in range(8):
        parent, _ = jobs.submit(database, new_job(kind="cross_validate", children=[new_job(), new_job()]))
        first, second = (jobs.claim(database, "w", Offer(["any"]), 30) for _ in range(2))
        assert first is not None
        assert second is not None
        at_once([lambda lease=c.lease: jobs.finish(database, lease, {}, []) for c in (first, second)])  # type: ignore[misc]
        pooling = jobs.claim(database, "w", Offer(["any"]), 30)
        assert pooling is not None
        assert pooling.lease.job_id == parent
        jobs.finish(database, pooling.lease, {}, [])


def test_cancelling_a_parent_while_its_children_end_leaves_all_closed(database: Database) -> None:
    for _ in range(8):
        parent, _ = jobs.submit(database, new_job(kind="cross_validate", children=[new_job() for _ in range(3)]))
        claims = [jobs.claim(database, "w", Offer(["any"]), 30) for _ in range(3)]

        def end(claim: Any) -> None:
            jobs.finish(database, claim.lease, {}, [])

        at_once([lambda: jobs.cancel(database, parent), *[lambda c=c: end(c) for c in claims]])  # noqa: B023
        job = views.get_job(database, ADMIN, parent)
        assert job["state"] in ("cancelled", "running")
        assert job["children"]["succeeded"] == 3
        jobs.cancel(database, parent)


def test_finish_races_with_expiry_and_exactly_one_wins(database: Database) -> None:
    for _ in range(10):
        job_id, _ = jobs.submit(database, new_job())
        claim = jobs.claim(database, "w", Offer(["any"]), -1)
        assert claim is not None
        artifact = NewArtifact("a", "text/plain", StoredFile("k", "0" * 64, 1))

        def finish(lease: Any = claim.lease, artifact: Any = artifact) -> bool:
            try:
                jobs.finish(database, lease, {"done": 1}, [artifact])
            except StaleAttempt:
                return False
            return True

        finished, expired = at_once([finish, lambda: jobs.expire_leases(database)])
        job = views.get_job(database, ADMIN, job_id)
        assert finished != (job_id in expired)
        assert job["state"] == ("succeeded" if finished else "queued")
        with database.read() as session:
            count = session.scalar(select(func.count()).select_from(Artifact).where(Artifact.job_id == job_id))
        assert count == (1 if finished else 0)
        jobs.cancel(database, job_id)


def test_want_of_memory_races_with_expiry_and_exactly_one_wins(database: Database) -> None:
    for _ in range(10):
        job_id, _ = jobs.submit(database, new_job(weights="w.pth"))
        assert jobs.claim(database, "w", Offer(["any"], []), -1) is None
        claim = jobs.claim(database, "w", Offer(["any"], ["w.pth"]), -1)
        assert claim is not None

        def fail(lease: Any = claim.lease) -> bool:
            try:
                jobs.fail(database, lease, "out_of_memory", "too many", fewer=8)
            except StaleAttempt:
                return False
            return True

        failed, expired = at_once([fail, lambda: jobs.expire_leases(database)])
        assert failed != (job_id in expired)
        with database.read() as session:
            job = session.execute(select(Job.state, Job.images_at_once, Job.losses).where(Job.id == job_id)).one()
        assert tuple(job) == (("queued", 8, 0) if failed else ("queued", None, 1))
        jobs.cancel(database, job_id)


def test_two_schedulers_expire_each_lease_once(database: Database) -> None:
    submitted = [jobs.submit(database, new_job())[0] for _ in range(6)]
    for _ in submitted:
        jobs.claim(database, "w", Offer(["any"]), -1)
    expired = [job_id for part in at_once([lambda: jobs.expire_leases(database)] * 4) for job_id in part]
    assert sorted(expired) == sorted(submitted)
    with database.read() as session:
        assert set(session.scalars(select(Job.losses))) == {1}


def test_of_many_candidates_one_leads_and_after_it_one_other(database: Database) -> None:
    candidates = [Leadership(database, "scheduler", str(number)) for number in range(THREADS)]
    for term in (1, 2):
        terms = at_once([candidate.hold for candidate in candidates])
        leader = candidates[terms.index(term)]
        assert [held for held in terms if held is not None] == [term]
        assert (leader.hold(), leader.present()) == (term, leader.holder)
        candidates.remove(leader)
        leader.give_back()


def test_two_sweeps_at_once_delete_old_rows_and_no_others(database: Database) -> None:
    context = Context(Settings.load({"BGPANET_KEEP_FAILED_DAYS": "1e-9", "BGPANET_KEEP_LOGS_DAYS": "1e-9"}))
    context.__dict__.update(database=database, store=open_store("memory://"))
    file = {"model.safetensors": StoredFile("jobs/a/1/b", "b", 1)}
    for number in range(4):
        jobs.submit(database, new_job())
        claim = jobs.claim(database, "w", Offer(["any"]), 60)
        assert claim is not None
        jobs.renew(database, claim.lease, 60, Batch(logs=[("info", "hello")] * 3))
        jobs.record_checkpoint(database, claim.lease, 1, 1, file)
        if number:
            jobs.fail(database, claim.lease, "internal", "x")
    time.sleep(0.005)
    swept = at_once([lambda: retention.sweep(context)] * 3)
    assert (sum(s.checkpoints for s in swept), sum(s.lines for s in swept)) == (3, 9)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Checkpoint)) == 1
        assert session.scalar(select(func.count()).select_from(LogLine)) == 3


def test_leases_follow_the_databases_clock(database: Database) -> None:
    job_id, _ = jobs.submit(database, new_job())
    claim = jobs.claim(database, "w", Offer(["any"]), 60)
    assert claim is not None
    assert jobs.expire_leases(database) == []
    jobs.renew(database, claim.lease, -1)
    assert jobs.expire_leases(database) == [job_id]


def test_figures_said_twice_replace_themselves(database: Database) -> None:
    job_id, _ = jobs.submit(database, new_job())
    claim = jobs.claim(database, "w", Offer(["any"]), 60)
    assert claim is not None
    for value in (0.5, 0.25):
        row = {"name": "loss", "step": 1, "epoch": 1, "value": value}
        jobs.renew(database, claim.lease, 60, Batch(metrics=[row], logs=[("info", "hello")]))
    assert views.list_metrics(database, ADMIN, job_id)["loss"] == [{"step": 1, "epoch": 1, "value": 0.25}]
    assert [line["message"] for line in views.list_logs(database, ADMIN, job_id)] == ["hello", "hello"]


# ── Data sets ────────────────────────────────────────────────────────────────────────────────────────────────────

FACTS = {
    "format": "folder",
    "synthetic": False,
    "classes": [],
    "images": 1,
    "groups": 1,
    "group_unit": "image",
    "class_counts": [],
    "columns": [],
    "licence": None,
    "citation": None,
    "locked": {},
    "findings": [],
}


def registration(database: Database, name: str) -> Claim:
    """A registration that a worker has claimed."""
    spec = {"source": {"format": "folder", "folder": "/x"}}
    new = new_job(kind="register", spec=spec, dataset_id=new_id(), registers=name, name=name, priority=100)
    jobs.submit(database, new)
    claim = jobs.claim(database, "w", Offer(["any"]), 60)
    assert claim is not None
    assert claim.kind == "register"
    return claim


def accept(database: Database, claim: Claim, digest: str) -> None:
    """The end of a registration, as a worker writes it: again where another one was in its way."""
    files = [NewArtifact(n, "x", StoredFile(n, "0" * 64, 1)) for n in ("index.json", "images.tar")]
    for _ in range(THREADS):
        try:
            jobs.finish(database, claim.lease, {**FACTS, "digest": digest}, files)
            return
        except SQLAlchemyError:
            continue
    raise AssertionError("never written")


def test_registrations_of_a_name_that_end_at_once_get_versions_of_their_own(database: Database) -> None:
    claims = [registration(database, "x") for _ in range(6)]
    at_once([partial(accept, database, claim, str(number % 3)) for number, claim in enumerate(claims)])
    with database.read() as session:
        rows = session.scalars(select(Dataset).where(Dataset.name == "x")).all()
    ready = {row.version or 0: row.digest for row in rows if row.state == "ready"}
    assert sorted(ready) == [1, 2, 3]
    assert sorted(ready.values()) == ["0", "1", "2"]
    for row in rows:
        if row.state == "duplicate":
            assert next(other.digest for other in rows if other.id == row.same_as) in ready.values()
    assert len(rows) == 6


def test_another_of_the_same_content_may_become_ready_between_any_two_statements(database: Database) -> None:
    statements = 0
    while True:
        statements += 1
        name = f"x{statements}"
        first, second = registration(database, name), registration(database, name)
        other = threading.Thread(target=accept, args=(database, second, name))
        left = statements

        def between(*_: Any, first_thread: int = threading.get_ident(), other: threading.Thread = other) -> None:
            nonlocal left
            if threading.get_ident() == first_thread:
                left -= 1
                if left == 0:
                    other.start()
                    other.join(0.3)  # or it waits for a lock that the first one holds

        event.listen(database.engine, "after_cursor_execute", between)
        accept(database, first, name)
        event.remove(database.engine, "after_cursor_execute", between)
        if left > 0:
            assert statements > 5
            return
        other.join()
        with database.read() as session:
            rows = session.scalars(select(Dataset).where(Dataset.name == name)).all()
        assert sorted((row.state, row.version) for row in rows) == [("duplicate", None), ("ready", 1)], statements


def test_no_job_is_left_waiting_for_a_data_set_that_becomes_ready_as_it_is_submitted(database: Database) -> None:
    claim = registration(database, "x")
    submissions = [partial(jobs.submit, database, new_job(dataset_id=claim.dataset_id)) for _ in range(THREADS)]
    at_once([*submissions, partial(accept, database, claim, "0")])
    assert jobs.count_waiting(database) == {"any": THREADS}


def test_no_job_is_left_waiting_for_a_data_set_that_is_refused_as_it_is_submitted(database: Database) -> None:
    claim = registration(database, "x")

    def submit() -> None:
        with contextlib.suppress(Conflict):
            jobs.submit(database, new_job(dataset_id=claim.dataset_id))

    refuse = partial(jobs.fail, database, claim.lease, "invalid_input", "no")
    at_once([*[submit] * THREADS, refuse])
    with database.read() as session:
        states = set(session.scalars(select(Job.state).where(Job.dataset_id == claim.dataset_id)))
    assert states == {"failed"}


def test_a_database_of_the_first_version_is_taken_over(request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url")
    migrate(url, "0001")
    fill_first_tables(url)
    migrate(url)
    check_first_tables(url)
    command.downgrade(config(url), "0001")


# ── What users and workers do at the same moment ─────────────────────────────────────────────────────────────────


def test_no_user_has_more_running_than_the_limit_however_many_workers_claim_at_once(database: Database) -> None:
    for user in ["ada"] * 6 + ["bob"] * 6:
        jobs.submit(database, new_job(created_by=user))
    claims = at_once([partial(jobs.claim, database, f"w{n}", Offer(["any"]), 30, 3) for n in range(THREADS)])
    assert sum(claim is not None for claim in claims) == 6
    with database.read() as session:
        running = select(Job.created_by, func.count()).where(Job.state == "running").group_by(Job.created_by)
        assert {user: count for user, count in session.execute(running)} == {"ada": 3, "bob": 3}


def test_a_job_that_follows_one_that_is_just_finishing_begins(database: Database) -> None:
    for _ in range(8):
        first, _ = jobs.submit(database, new_job())
        claim = jobs.claim(database, "w", Offer(["any"]), 30)
        assert claim is not None
        submit = partial(jobs.submit, database, new_job(after=[first]))
        _, (second, _) = at_once([partial(jobs.finish, database, claim.lease, {}, []), submit])
        following = jobs.claim(database, "w", Offer(["any"]), 30)
        assert following is not None
        assert following.lease.job_id == second
        jobs.finish(database, following.lease, {}, [])


def test_children_that_fail_at_the_same_moment_end_all_others_and_never_wait_for_each_other(database: Database) -> None:
    for _ in range(8):
        children = [new_job() for _ in range(5)]
        parent, _ = jobs.submit(database, new_job(kind="cross_validate", children=children, on_failure="fail_fast"))
        claims = [jobs.claim(database, "w", Offer(["any"]), 30) for _ in range(3)]
        leases = [claim.lease for claim in claims if claim is not None]
        ends = [partial(jobs.fail, database, lease, "non_finite_loss", "NaN") for lease in leases[:2]]
        at_once([*ends, partial(jobs.finish, database, leases[2], {}, [])])
        job = views.get_job(database, ADMIN, parent)
        assert job["state"] == "failed"
        assert job["children"]["queued"] == job["children"]["running"] == 0
        assert jobs.claim(database, "w", Offer(["any"]), 30) is None


def test_a_job_that_is_tried_again_by_many_at_once_is_tried_again_once(database: Database) -> None:
    job_id, _ = jobs.submit(database, new_job())
    claim = jobs.claim(database, "w", Offer(["any"]), 30)
    assert claim is not None
    jobs.record_checkpoint(database, claim.lease, 7, 1, {"model": StoredFile("k", "0" * 64, 1)})
    jobs.fail(database, claim.lease, "stalled", "silent")
    assert len(set(at_once([partial(jobs.retry, database, job_id)] * THREADS))) == 1
    again = jobs.claim(database, "w", Offer(["any"]), 30)
    assert again is not None
    assert again.checkpoint == {"model": StoredFile("k", "0" * 64, 1)}
    assert jobs.claim(database, "w", Offer(["any"]), 30) is None


def test_pausing_resuming_and_finishing_at_once_leave_no_job_behind(database: Database) -> None:
    def finish(lease: Any) -> None:
        with contextlib.suppress(StaleAttempt):
            jobs.finish(database, lease, {}, [])

    def ask(what: Callable[[Database, str], str], job_id: str) -> None:
        with contextlib.suppress(Conflict):
            what(database, job_id)

    for _ in range(8):
        parent, _ = jobs.submit(database, new_job(kind="cross_validate", children=[new_job(), new_job()]))
        claims = [jobs.claim(database, "w", Offer(["any"]), 30) for _ in range(2)]
        ends = [partial(finish, claim.lease) for claim in claims if claim is not None]
        at_once([*ends, partial(ask, jobs.pause, parent), partial(ask, jobs.resume, parent)])
        jobs.resume(database, parent)
        pooling = jobs.claim(database, "w", Offer(["any"]), 30)
        assert pooling is not None
        assert pooling.lease.job_id == parent
        jobs.finish(database, pooling.lease, {}, [])
