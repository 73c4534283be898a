"""What the database tells Prometheus, against jobs that were taken through the state machine."""

from pathlib import Path

from prometheus_client import CollectorRegistry
from sqlalchemy import select
from sqlalchemy.orm import make_transient

from services import fleet, jobs
from services.claims import Lease, NewJob
from services.context import Context
from services.database import Database
from services.fleet import Member, Weights
from services.leadership import Leadership
from services.order import Offer
from services.settings import Settings
from services.tables import Transition
from services.telemetry.from_sql import KEPT_SECONDS, FromSQL
from tests.support.clocked import Clock

OFFER = Offer(("any", "cpu"))


class Scraped:
    """The collector on a test's database. Its own clock stands still but for `later`."""

    def __init__(self, database: Database, folder: Path) -> None:
        context = Context(Settings.load({"BGPANET_HOME": str(folder), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"}))
        context.__dict__["database"] = database
        self.now = 1000.0
        self.collector = FromSQL(context, self.now, lambda: self.now)
        self.registry = CollectorRegistry()
        self.registry.register(self.collector)

    def later(self, seconds: float = KEPT_SECONDS) -> "Scraped":
        self.now += seconds
        return self

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def train(database: Database, **changes: object) -> str:
    return jobs.submit(database, NewJob("train", "a", {"seed": 0}, "d", "ada", **changes))[0]  # type: ignore[arg-type]


def claimed(database: Database) -> Lease:
    claim = jobs.claim(database, "w", OFFER, 30)
    assert claim is not None
    return claim.lease


def test_waiting_and_running_jobs_are_told_by_kind_and_class(database: Database, tmp_path: Path) -> None:
    told = Scraped(database, tmp_path)
    train(database)
    train(database, resource_class="gpu")
    assert told("bgpanet_jobs_waiting", kind="train", resource_class="any") == 1
    assert told("bgpanet_jobs_waiting", kind="train", resource_class="gpu") == 1
    assert told("bgpanet_jobs_waiting", kind="predict", resource_class="any") == 0
    claimed(database)
    told.later()
    assert told("bgpanet_jobs_waiting", kind="train", resource_class="any") == 0
    assert told("bgpanet_jobs_running", kind="train") == 1


def test_an_answer_is_kept_for_a_few_seconds(database: Database, tmp_path: Path) -> None:
    told = Scraped(database, tmp_path)
    assert told("bgpanet_jobs_waiting", kind="train", resource_class="any") == 0
    train(database)
    assert told("bgpanet_jobs_waiting", kind="train", resource_class="any") == 0
    assert told.later()("bgpanet_jobs_waiting", kind="train", resource_class="any") == 1


def test_a_job_waits_from_when_it_could_be_claimed_not_from_its_submission(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    told = Scraped(database, tmp_path)
    job = train(database)
    clock.forward(100)
    assert told("bgpanet_oldest_waiting_seconds", resource_class="any") == 100
    assert told("bgpanet_oldest_waiting_seconds", resource_class="gpu") == 0
    lease = claimed(database)
    clock.forward(5000)
    jobs.release(database, lease, "the worker was told to leave")
    clock.forward(7)
    assert told.later()("bgpanet_oldest_waiting_seconds", resource_class="any") == 7
    claimed(database)
    follower = train(database, after=(job,))
    clock.forward(500)
    assert told.later()("bgpanet_oldest_waiting_seconds", resource_class="any") == 0
    jobs.finish(database, Lease(job, 2), {}, [])
    clock.forward(3)
    assert told.later()("bgpanet_oldest_waiting_seconds", resource_class="any") == 3
    assert claimed(database).job_id == follower


def test_a_parent_waits_to_be_pooled_from_the_end_of_its_last_child(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    told = Scraped(database, tmp_path)
    child = NewJob("train", "fold", {}, "d", "ada")
    jobs.submit(database, NewJob("cross_validate", "cv", {}, "d", "ada", children=(child,)))
    lease = claimed(database)
    clock.forward(4000)
    jobs.finish(database, lease, {}, [])
    clock.forward(2)
    assert told("bgpanet_oldest_waiting_seconds", resource_class="any") == 2


def test_claims_retries_and_ends_are_counted_once_each(database: Database, clock: Clock, tmp_path: Path) -> None:
    clock.forward(1000)
    told = Scraped(database, tmp_path)
    assert told("bgpanet_retries_total", kind="train", reason="storage") == 0
    train(database)
    jobs.fail(database, claimed(database), "storage", "the store is away")
    clock.forward(30)
    jobs.release(database, claimed(database), "the worker was told to leave")
    jobs.fail(database, claimed(database), "internal", "a defect")
    for seconds in (0, 61, 61, 1):  # before and after these rows have settled
        clock.forward(seconds)
        told.later(max(seconds, KEPT_SECONDS))
        assert told("bgpanet_claims_total", kind="train") == 3
        assert told("bgpanet_retries_total", kind="train", reason="storage") == 1
        assert told("bgpanet_given_back_total", kind="train") == 1
        assert told("bgpanet_jobs_ended_total", kind="train", state="failed", reason="internal") == 1
        assert told("bgpanet_jobs_ended_total", kind="train", state="succeeded", reason="") == 0


def test_counters_begin_with_the_api_in_all_of_its_processes(database: Database, clock: Clock, tmp_path: Path) -> None:
    train(database)
    jobs.finish(database, claimed(database), {}, [])
    clock.forward(600)
    first, second = Scraped(database, tmp_path), Scraped(database, tmp_path)
    train(database)
    jobs.finish(database, claimed(database), {}, [])
    assert first("bgpanet_jobs_ended_total", kind="train", state="succeeded", reason="") == 1
    clock.forward(300)
    # The second one is asked for the first time only now, and tells the same.
    for told in (first, second):
        told.later(300)
        assert told("bgpanet_jobs_ended_total", kind="train", state="succeeded", reason="") == 1


def test_a_row_that_is_committed_late_is_counted_too(database: Database, clock: Clock, tmp_path: Path) -> None:
    told = Scraped(database, tmp_path)
    for _ in range(2):
        train(database)
        claimed(database)
    claims = select(Transition).where(Transition.state == "running").order_by(Transition.id)
    with database.write() as session:
        first = session.scalars(claims).first()
        assert first is not None
        session.delete(first)
    assert told("bgpanet_claims_total", kind="train") == 1
    with database.write() as session:
        make_transient(first)
        session.add(first)
    assert told.later()("bgpanet_claims_total", kind="train") == 2
    clock.forward(100)
    assert told.later(100)("bgpanet_claims_total", kind="train") == 2


def member(name: str) -> Member:
    return Member(name, "host", 1, "1", "GPU 0", ("any", "gpu"))


def test_heartbeats_tell_of_hosts_and_devices_until_they_stop(database: Database, clock: Clock, tmp_path: Path) -> None:
    told = Scraped(database, tmp_path)
    figures = {
        "gpu_percent": 87,
        "gpu_memory_used": 5e9,
        "gpu_celsius": 61,
        "disk_free": 7e9,
        "images_per_second": 12.5,
    }
    fleet.beat(database, member("w/0"), "j", figures, Weights())
    assert told("bgpanet_worker_slots", state="ready", resource_class="gpu") == 1
    assert told("bgpanet_worker_slots", state="ready", resource_class="cpu") == 0
    assert told("bgpanet_worker_up", worker="w/0") == 1
    assert told("bgpanet_worker_busy", worker="w/0") == 1
    assert told("bgpanet_gpu_use_ratio", worker="w/0") == 0.87
    assert told("bgpanet_gpu_memory_used_bytes", worker="w/0") == 5e9
    assert told("bgpanet_gpu_temperature_celsius", worker="w/0") == 61
    assert told("bgpanet_worker_disk_free_bytes", worker="w/0") == 7e9
    assert told("bgpanet_worker_images_per_second", worker="w/0") == 12.5
    assert told("bgpanet_gpu_power_watts", worker="w/0") is None
    clock.forward(61)
    told.later()
    assert told("bgpanet_worker_up", worker="w/0") == 0
    assert told("bgpanet_worker_silence_seconds", worker="w/0") == 61
    assert told("bgpanet_gpu_use_ratio", worker="w/0") is None
    assert told("bgpanet_worker_slots", state="ready", resource_class="gpu") == 0


def test_the_leader_of_the_schedulers_is_told(database: Database, clock: Clock, tmp_path: Path) -> None:
    told = Scraped(database, tmp_path)
    assert told("bgpanet_scheduler_leaders") == 0
    Leadership(database, "scheduler", "s1").hold()
    clock.forward(3)
    assert told.later()("bgpanet_scheduler_leaders") == 1
    assert told("bgpanet_scheduler_silence_seconds") == 3
    clock.forward(60)
    assert told.later()("bgpanet_scheduler_leaders") == 0
    assert told("bgpanet_scheduler_silence_seconds") == 63


def test_without_database_and_redis_the_rest_is_still_told(database: Database, tmp_path: Path) -> None:
    told = Scraped(database, tmp_path)
    assert told("bgpanet_sql_up") == 1
    assert told("bgpanet_redis_up") == 0
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO elsewhere")
    assert told.later()("bgpanet_sql_up") == 0
    assert told("bgpanet_jobs_running", kind="train") is None
