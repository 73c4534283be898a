"""Every series that the product exports for Prometheus, with its help text. docs/metrics.md lists the same.

`source` says who exports it. Series of `sql` are read from the database whenever an API is asked for `/metrics`, so
each API tells the same: take their maximum over instances, never their sum. The others are what one process knows.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["api", "sql", "worker", "scheduler"]


@dataclass(frozen=True)
class Series:
    """One family of series. A counter's name ends with `_total`, a time is in seconds, a size in bytes."""

    name: str
    kind: Kind
    source: Source
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# ── The API ───────────────────────────────────────────────────────────────────────────────────────────────────────

HTTP_REQUESTS = Series(
    "bgpanet_http_requests_total",
    "counter",
    "api",
    "Requests that were answered, by route template, method and status",
    ("route", "method", "status"),
)
HTTP_SECONDS = Series(
    "bgpanet_http_request_seconds",
    "histogram",
    "api",
    "Time until the answer of a request begins",
    ("route", "method"),
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
SQL_UP = Series("bgpanet_sql_up", "gauge", "api", "1: the database told the series below; 0: it did not answer")
SQL_SECONDS = Series(
    "bgpanet_sql_read_seconds", "gauge", "api", "Time that reading these series from the database took"
)
REDIS_UP = Series("bgpanet_redis_up", "gauge", "api", "1: Redis told how many wake-ups wait; 0: it did not answer")
WAKE_UPS_WAITING = Series(
    "bgpanet_wake_ups_waiting", "gauge", "api", "Wake-ups in Redis that no worker has taken", ("resource_class",)
)

# ── Out of the database: jobs ─────────────────────────────────────────────────────────────────────────────────────

JOBS_WAITING = Series(
    "bgpanet_jobs_waiting",
    "gauge",
    "sql",
    "Jobs that a worker could claim, those in the delay before another try among them",
    ("kind", "resource_class"),
)
OLDEST_WAITING = Series(
    "bgpanet_oldest_waiting_seconds",
    "gauge",
    "sql",
    "For how long the job that has waited longest could have been claimed",
    ("resource_class",),
)
JOBS_RUNNING = Series("bgpanet_jobs_running", "gauge", "sql", "Jobs that a worker has", ("kind",))
CLAIMS = Series("bgpanet_claims_total", "counter", "sql", "Attempts that began, since the API started", ("kind",))
RETRIES = Series(
    "bgpanet_retries_total",
    "counter",
    "sql",
    "Attempts that failed and whose job is tried again, since the API started",
    ("kind", "reason"),
)
GIVEN_BACK = Series(
    "bgpanet_given_back_total",
    "counter",
    "sql",
    "Jobs that workers gave back unfinished and unharmed, since the API started",
    ("kind",),
)
JOBS_ENDED = Series(
    "bgpanet_jobs_ended_total",
    "counter",
    "sql",
    "Jobs that ended, since the API started; reason is empty unless they failed",
    ("kind", "state", "reason"),
)

# ── Out of the database: workers and the scheduler ────────────────────────────────────────────────────────────────

WORKER_SLOTS = Series(
    "bgpanet_worker_slots",
    "gauge",
    "sql",
    "Worker slots that were heard of lately, by their condition and what they take",
    ("state", "resource_class"),
)
WORKER_UP = Series(
    "bgpanet_worker_up", "gauge", "sql", "1: the slot was heard of lately; 0: it went silent", ("worker",)
)
WORKER_SILENCE = Series(
    "bgpanet_worker_silence_seconds", "gauge", "sql", "Time since the slot's last heartbeat", ("worker",)
)
WORKER_BUSY = Series("bgpanet_worker_busy", "gauge", "sql", "1: the slot has a job", ("worker",))
WORKER_CPU = Series("bgpanet_worker_cpu_ratio", "gauge", "sql", "CPU use of the slot's host, 0 to 1", ("worker",))
WORKER_MEMORY_USED = Series(
    "bgpanet_worker_memory_used_bytes", "gauge", "sql", "Memory of the slot's host in use", ("worker",)
)
WORKER_MEMORY = Series("bgpanet_worker_memory_bytes", "gauge", "sql", "Memory of the slot's host", ("worker",))
WORKER_DISK_FREE = Series(
    "bgpanet_worker_disk_free_bytes",
    "gauge",
    "sql",
    "Free space of the disk with data set and pixel caches and running attempts",
    ("worker",),
)
GPU_USE = Series("bgpanet_gpu_use_ratio", "gauge", "sql", "Use of the slot's GPU, 0 to 1", ("worker",))
GPU_MEMORY_USED = Series(
    "bgpanet_gpu_memory_used_bytes", "gauge", "sql", "Memory of the slot's GPU in use", ("worker",)
)
GPU_MEMORY = Series("bgpanet_gpu_memory_bytes", "gauge", "sql", "Memory of the slot's GPU", ("worker",))
GPU_CELSIUS = Series("bgpanet_gpu_temperature_celsius", "gauge", "sql", "Temperature of the slot's GPU", ("worker",))
GPU_WATTS = Series("bgpanet_gpu_power_watts", "gauge", "sql", "Power that the slot's GPU draws", ("worker",))
IMAGES_PER_SECOND = Series(
    "bgpanet_worker_images_per_second",
    "gauge",
    "sql",
    "Images that the slot's training learns from in a second, now; absent while it trains nothing",
    ("worker",),
)
LAST_UPLOAD = Series(
    "bgpanet_worker_checkpoint_upload_seconds",
    "gauge",
    "sql",
    "How long the last checkpoint of the slot's job took to be stored; absent before the first",
    ("worker",),
)
SCHEDULER_LEADERS = Series(
    "bgpanet_scheduler_leaders", "gauge", "sql", "1: a scheduler holds the lease of the leader; 0: none does"
)
SCHEDULER_TERM = Series(
    "bgpanet_scheduler_term", "gauge", "sql", "The leader's term; it grows whenever another scheduler leads"
)
SCHEDULER_SILENCE = Series(
    "bgpanet_scheduler_silence_seconds", "gauge", "sql", "Time since a leader last renewed its lease, before its tick"
)

# ── What a worker process knows ───────────────────────────────────────────────────────────────────────────────────

STALE_WRITES = Series(
    "bgpanet_stale_writes_refused_total",
    "counter",
    "worker",
    "Writes of this process that were refused because another attempt has the job",
)
LEASES_LOST = Series(
    "bgpanet_leases_lost_total", "counter", "worker", "Leases that this process could not keep", ("why",)
)
ATTEMPTS = Series("bgpanet_attempts_total", "counter", "worker", "Attempts that this process began", ("kind",))
ATTEMPT_SECONDS = Series(
    "bgpanet_attempt_seconds",
    "histogram",
    "worker",
    "How long an attempt took from its claim to its end",
    ("kind",),
    (1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 21_600.0, 86_400.0, 259_200.0),
)
PREPARE_SECONDS = Series(
    "bgpanet_prepare_seconds",
    "histogram",
    "worker",
    "How long it took to fetch what an attempt needs",
    ("kind",),
    (0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0),
)
UPLOAD_SECONDS = Series(
    "bgpanet_checkpoint_upload_seconds",
    "histogram",
    "worker",
    "How long it took to store and record a checkpoint",
    (),
    (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
UPLOADS_FAILED = Series(
    "bgpanet_checkpoint_uploads_failed_total", "counter", "worker", "Checkpoints that could not be stored or recorded"
)

# ── What a scheduler process knows ────────────────────────────────────────────────────────────────────────────────

SCHEDULER_LEADS = Series("bgpanet_scheduler_leads", "gauge", "scheduler", "1: this process leads; 0: it stands by")
TICKS = Series(
    "bgpanet_scheduler_ticks_total",
    "counter",
    "scheduler",
    "Ticks of this process while it led, by result",
    ("result",),
)
LAST_TICK = Series(
    "bgpanet_scheduler_last_tick_timestamp_seconds",
    "gauge",
    "scheduler",
    "When this process last ended a tick without an error, seconds since 1970; 0: never",
)
LEASES_EXPIRED = Series(
    "bgpanet_scheduler_leases_expired_total", "counter", "scheduler", "Jobs taken back from silent workers"
)
WAKE_UPS_SENT = Series(
    "bgpanet_scheduler_wake_ups_total",
    "counter",
    "scheduler",
    "Wake-ups sent again for waiting jobs",
    ("resource_class",),
)
SWEEPS = Series(
    "bgpanet_scheduler_sweeps_total", "counter", "scheduler", "Sweeps of uploads and retention, by result", ("result",)
)

ALL: tuple[Series, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Series))
