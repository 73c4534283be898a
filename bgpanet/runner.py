"""One run, from a spec file to an exit status: what the command line, the fork server and torchrun start."""

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bgpanet.errors import BGPANetError, DataRefused, DeviceMissing, Interrupted, InvalidInput, Problem
from bgpanet.events import Event, Failure, Log, Report, Told
from bgpanet.specs import (
    AnySpec,
    CrossValidateSpec,
    EvaluateSpec,
    ExplainSpec,
    ExportSpec,
    ImportSpec,
    LearningSpec,
    RegisterSpec,
    StudySpec,
    TrainSpec,
    TrialSpec,
    read_spec,
)

SUCCEEDED, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 75
"""Exit statuses. 75 is sysexits' EX_TEMPFAIL: the same command goes on from the checkpoint."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Run:
    """What is to be run, and where. See `bgpanet.experiment.Workplace`."""

    kind: str
    spec: Path
    output: Path
    cache: Path
    threads: int | None = None
    cache_limit: int | None = None


class StopSignal:
    """True once SIGTERM or SIGINT arrived; a second one ends the process at once, unless it is `patient`."""

    def __init__(self, patient: bool = False) -> None:
        self.requested, self.patient = False, patient
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._requested)
        # A fork server blocks them for its child until here, so that none is lost.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})

    def _requested(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self.patient:
            signal.signal(number, signal.SIG_DFL)

    def __call__(self) -> bool:
        return self.requested


class Voice:
    """How one process of several reports: the leading one says everything, and the first to fail that it failed."""

    def __init__(self, report: Report) -> None:
        self.report, self.leads = report, process_number() == 0
        self.is_first_to_fail: Callable[[], bool] = lambda: self.leads

    def __call__(self, event: Event) -> None:
        if self.is_first_to_fail() if isinstance(event, Failure) else self.leads:
            self.report(event)


def process_number() -> int | None:
    """The number of this process among those that torchrun started; None where it did not."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def execute(run: Run, report: Report) -> int:
    """Runs to the end, reports how it ended, returns the exit status. SIGTERM and SIGINT are a wish to stop."""
    is_one_of_many = process_number() is not None
    if is_one_of_many:
        end_with(os.getppid())
        report = Voice(report)
    # torchrun sends a second signal as soon as the first of its processes has stopped.
    stop = StopSignal(patient=is_one_of_many)
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
        if is_one_of_many and stop():
            return INTERRUPTED  # another process stopped first, and this one waited for it
        report(Log(level="error", message=traceback.format_exc()))
        report(Failure(reason=_reason(error), message=f"{type(error).__name__}: {error}"))
        return FAILED
    return SUCCEEDED


def _reason(error: Exception) -> str:
    """Under which an error is filed that nobody foresaw. Memory may be wanting anywhere, not only where a batch is
    computed: when weights or an average move to the device, or a feed's copy does."""
    if isinstance(error, OSError):
        return "storage"
    if "torch" in sys.modules:
        from bgpanet.compute import wants_memory

        if wants_memory(error):
            return "out_of_memory"
    return "out_of_memory" if isinstance(error, MemoryError) else "internal"


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
    if isinstance(spec, ImportSpec | ExportSpec | TrialSpec):
        _start_own(spec, run, report, stop)
        return
    # Imported here: torch takes seconds, and a wrong spec is told before that.
    from bgpanet.compute import named_gpus
    from bgpanet.experiment import Workplace, cross_validate, train
    from bgpanet.explain import explain
    from bgpanet.held_out import evaluate_model
    from bgpanet.prediction import predict
    from bgpanet.study import study
    from bgpanet.training.distributed import join

    processes = join()
    if isinstance(report, Voice):
        report.is_first_to_fail = processes.is_first_to_fail
    if (gpus := spec.resources.gpus) > 1 and processes.count == 1:
        told = f"{gpus} are wanted, and {_gpus()} are here"
        if named_gpus() >= gpus:  # they were promised: another worker has them
            raise DeviceMissing(f"GPUs: {told}")
        raise InvalidInput.one("resources.gpus", told)
    if processes.count > 1 and not isinstance(spec, LearningSpec):
        raise InvalidInput.one("resources.gpus", f"must be 1: {run.kind} applies a model in one process")
    place = Workplace(run.output, run.cache, report, stop, run.threads, run.cache_limit, processes)
    if isinstance(spec, TrainSpec):
        train(spec, place)
    elif isinstance(spec, CrossValidateSpec):
        cross_validate(spec, place)
    elif isinstance(spec, StudySpec):
        study(spec, place)
    elif isinstance(spec, EvaluateSpec):
        evaluate_model(spec, place)
    elif isinstance(spec, ExplainSpec):
        explain(spec, place)
    else:
        predict(spec, place)
    processes.leave()


def _start_own(spec: ImportSpec | ExportSpec | TrialSpec, run: Run, report: Report, stop: StopSignal) -> None:
    from bgpanet.experiment import Workplace

    place = Workplace(run.output, run.cache, report, stop, run.threads, run.cache_limit)
    if isinstance(spec, ImportSpec):
        from bgpanet.importing import import_model

        import_model(spec, place)
    elif isinstance(spec, ExportSpec):
        from bgpanet.export import export

        export(spec, place)
    else:
        from bgpanet.trial import try_out

        try_out(spec, place)


# ── Several processes ─────────────────────────────────────────────────────────────────────────────────────────────


def start_together(run: Run, events: Path | None = None) -> int | None:
    """Runs `run` under torchrun, a process for each GPU that its spec asks for, and returns the exit status.

    events: what they write events into. None where it is to be executed here: it asks for one, it is one of those
    processes, or it can't be right.
    """
    if process_number() is not None:
        return None
    try:
        gpus = read_spec(run.kind, run.spec).resources.gpus
    except InvalidInput:
        return None
    if not 1 < gpus <= _gpus():
        return None
    threads = [] if run.threads is None else ["--threads", str(run.threads)]
    limit = [] if run.cache_limit is None else ["--cache-gb", str(run.cache_limit / 1e9)]
    places = ["--output", str(run.output), "--cache", str(run.cache)]
    places += [] if events is None else ["--events", str(events)]
    return torchrun(gpus, ["bgpanet", run.kind, str(run.spec), *places, *limit, *threads])


def torchrun(processes: int, module: Sequence[str]) -> int:
    """The exit status of `python -m module`, run by so many processes together: that of the first that failed, but
    where one was killed minus the number of that signal.

    torchrun itself would end with 1 then. It passes on SIGTERM and SIGINT, and ends after 30 s what is still there.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser
    from torch.distributed.run import run as start

    def stop(number: int, frame: FrameType | None) -> None:
        raise SignalException("stopped", signal.Signals(number))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)  # until torchrun's own stands
    # A fork server blocks them for its child until here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # until a run sets its threads; torchrun would do it with a warning
    options = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}"]
    try:
        start(get_args_parser().parse_args([*options, "-m", *module]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        # Of the end of one that was killed the others fail too, or are ended by torchrun.
        codes = [failure.exitcode for failure in error.failures.values()]
        killed = [code for code in codes if code < 0 and code != -signal.SIGTERM]
        return (killed or [error.get_first_failure()[1].exitcode])[0] or FAILED
    except SignalException:
        return INTERRUPTED
    return SUCCEEDED


def end_with(parent: int) -> None:
    """Has the kernel end this process when its parent dies (Linux; elsewhere a broken pipe ends it a little later)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(FAILED)


def leave(status: int) -> None:
    """Ends this process. Of several one that failed leaves at once: a connection to a GPU may wait for others."""
    if status != SUCCEEDED and process_number() is not None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
