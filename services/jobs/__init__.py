"""The job's state machine, and the only writer of a job's state.

              ┌──resume── paused ◀─pause (at once, or when a running child has written its checkpoint)
              ▼             │
    submit─▶ queued ──claim─┼─▶ running ──finish──▶ succeeded
              ▲  │          │     │ ├────fail────▶ failed     (or back to queued, where trying again can help: `lose`)
              │  └──cancel──┤     │ ├───cancel───▶ cancelled
              └──release────┼─────┘ └─lease expired─▶ queued, or failed once it was lost `max_attempts` times in a row
                            ▼
                        cancelled                   The last three states never change again: `retry` makes a new job
                                                    that takes over the checkpoints and the finished children.

Every transition is one transaction around one conditional statement. A worker's writes are fenced: they hold only
while its `Lease` (job, attempt) is the current one, else `StaleAttempt` is raised and nothing is written. Which of the
waiting jobs is claimed is said by `services.order`; whether a job waits for a worker at all, by `wants_worker`:

- a job without children wants one from when its data set is ready and all jobs that it is to follow have succeeded;
- a parent (cross-validation, study, batch inference in shards) runs without a worker while its children work, and
  wants one once they have ended, to pool their results.

What ends a job may end or wake others, in the same transaction: its parent, the jobs that follow it, and, of a job
that registers a data set, the jobs that wait for that (`services.registry` holds a data set's states).

Where it stands: `beginnings` (submit, retry), `attempts` (claim to finish, under a lease), `checkpoints` (which there
are), `wishes` (cancel, pause, resume, priority), `families` (what one job's end means for others), `rows` (the fence,
and the record of what happened).
"""

from services.jobs.attempts import (
    REASONS,
    RETRY_DELAYS,
    TRIED_AGAIN,
    claim,
    confirm_cancel,
    count_waiting,
    expire_leases,
    fail,
    finish,
    release,
    renew,
    resumed,
)
from services.jobs.beginnings import forget, retry, submit
from services.jobs.checkpoints import record_checkpoint
from services.jobs.wishes import cancel, pause, resume, set_priority

__all__ = [
    "REASONS",
    "RETRY_DELAYS",
    "TRIED_AGAIN",
    "cancel",
    "claim",
    "confirm_cancel",
    "count_waiting",
    "expire_leases",
    "fail",
    "finish",
    "forget",
    "pause",
    "record_checkpoint",
    "release",
    "renew",
    "resume",
    "resumed",
    "retry",
    "set_priority",
    "submit",
]
