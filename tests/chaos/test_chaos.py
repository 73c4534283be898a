"""The product under fire, for a minute. `make chaos` is the long form."""

from pathlib import Path

import pytest

from tests.chaos.drill import Drill, Pace
from tests.chaos.report import listed, replay, table, write

PACE = Pace(
    kills=12,
    between_seconds=0.3,
    other_faults=0.4,
    first=(
        "kill worker",
        "kill worker before a checkpoint is recorded",
        "kill scheduler",
        "bit of the newest checkpoint flipped",
    ),
    minutes=0.5,
    workers=2,
    width=3,
    epochs=8,
    variants=1,
    redis_gone_seconds=10.0,
    quiet_seconds=240.0,
    without=("hang child", "job that kills every worker", "out of memory"),  # each takes half a minute
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_whatever_dies_no_job_is_lost_or_doubled_and_every_result_has_the_same_bits(
    database: str, tmp_path: Path
) -> None:
    drill = Drill(database, 1, PACE, tmp_path, print)
    try:
        outcome = drill.run()
    except AssertionError:
        print(f"seed {drill.seed} on {database}\n{listed(drill.injected)}")
        raise
    print(table(outcome, PACE.lease_seconds))
    write(outcome, tmp_path / "outcome.json")
    assert not outcome.findings.all, f"{outcome.findings.all}\n{replay(outcome)}"
    assert outcome.kills
    assert outcome.findings.compared
