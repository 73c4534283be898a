"""Progress bars of jobs on the service, for the command line and the demo."""

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bgpanet.text import duration
from services.client import JobHandle


class JobBars:
    """A bar for each job: name, fraction, elapsed time, state, time left."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "JobBars":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def add(self, job: JobHandle) -> None:
        """A bar for one more job."""
        self._tasks[job.id] = self._bar.add_task(escape(job.values["name"]), total=1.0, note=job.state)

    def update(self, job: JobHandle) -> None:
        """Shows what the service said of a job last; one that is new here gets its bar."""
        if job.id not in self._tasks:
            self.add(job)
        self._bar.update(self._tasks[job.id], completed=job.values["progress"]["fraction"], note=escape(_note(job)))

    def sent(self, name: str, sent: int, size: int) -> None:
        """Shows how much of a file was uploaded."""
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(f"upload {escape(name)}", total=1.0, note="")
        note = f"{sent / 1e6:,.0f} of {size / 1e6:,.0f} MB"
        self._bar.update(self._tasks[name], completed=sent / size, note=note)


def _note(job: JobHandle) -> str:
    progress = job.values["progress"]
    if job.state != "running":
        return job.state
    parts = [job.state]
    if progress["epoch"]:
        parts.append(f"epoch {progress['epoch']}/{progress['epochs']}")
    if progress["eta_seconds"] is not None:
        parts.append(f"{duration(progress['eta_seconds'])} left")
    parts.append(progress["message"])
    return "  ".join(part for part in parts if part)
