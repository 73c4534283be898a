"""One run, from a spec file to an exit status: what the command line and the fork server both start."""

import signal
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bgpanet.errors import BGPANetError, DataRefused, Interrupted, InvalidInput, Problem
from bgpanet.events import Failure, Log, Report, Told
from bgpanet.specs import AnySpec, CrossValidateSpec, RegisterSpec, StudySpec, TrainSpec, read_spec

SUCCEEDED, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 75
"""Exit statuses. 75 is sysexits' EX_TEMPFAIL: the same command goes on from the checkpoint."""


@dataclass(frozen=True)
class Run:
    """What is to be run, and where. See `bgpanet.experiment.Workplace`."""

    kind: str
    spec: Path
    output: Path
    cache: Path
    threads: int | None = None


class StopSignal:
    """True once SIGTERM or SIGINT arrived; a second one ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._requested)
        # A fork server blocks them for its child until here, so that none is lost.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})

    def _requested(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)

    def __call__(self) -> bool:
        return self.requested


def execute(run: Run, report: Report) -> int:
    """Runs to the end, reports how it ended, returns the exit status. SIGTERM and SIGINT are a wish to stop."""
    stop = StopSignal()
    try:
        _start(read_spec(run.kind, run.spec), run, report, stop)
    except Interrupted as interruption:
        report(Log(level="warning", message=str(interruption)))
        return INTERRUPTED
    except BGPANetError as error:
        report(Failure(reason=error.reason, message=str(error), findings=_told(error)))
        return WRONG if error.reason == "invalid_input" else FAILED
    except BrokenPipeError:
        return FAILED  # nobody listens any more
    except Exception as error:
        report(Log(level="error", message=traceback.format_exc()))
        reason = "storage" if isinstance(error, OSError) else "internal"
        report(Failure(reason=reason, message=f"{type(error).__name__}: {error}"))
        return FAILED
    return SUCCEEDED


def _told(error: BGPANetError) -> tuple[Told, ...]:
    remarks: Iterable[tuple[str, Problem]] = ()
    if isinstance(error, DataRefused):
        remarks = error.remarks
    elif isinstance(error, InvalidInput):
        remarks = (("refused", problem) for problem in error.problems)
    return tuple(Told(level=level, where=problem.where, what=problem.what) for level, problem in remarks)


def _start(spec: AnySpec, run: Run, report: Report, stop: StopSignal) -> None:
    if isinstance(spec, RegisterSpec):
        from bgpanet.registration import register

        register(spec, run.output, report, stop, run.threads)
        return
    # Imported here: torch takes seconds, and a wrong spec is told before that.
    from bgpanet.experiment import Workplace, cross_validate, train
    from bgpanet.prediction import predict
    from bgpanet.study import study

    place = Workplace(output=run.output, cache=run.cache, report=report, stop=stop, threads=run.threads)
    if isinstance(spec, TrainSpec):
        train(spec, place)
    elif isinstance(spec, CrossValidateSpec):
        cross_validate(spec, place)
    elif isinstance(spec, StudySpec):
        study(spec, place)
    else:
        predict(spec, place)
