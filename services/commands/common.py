"""What all verbs share: where they print, tables and JSON, and how an error becomes a message and an exit status."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bgpanet.errors import BGPANetError
from services.client_errors import ApiError, ArrivedDamaged, JobFailed, Missing, NotAllowed, TokenRefused, TooBusy
from services.commands.completion import job_ids
from services.errors import NotFound, ServiceError

# Where nobody sees a terminal's width, lines are for programs and files.
console = Console(width=None if sys.stdout.isatty() else 1000)  # in a pipe a row stays a line
errors = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="a job's id", autocompletion=job_ids)]
Columns = Mapping[str, Callable[[Mapping[str, Any]], object]]
"""A table's columns: what each is called, and its cell of a row."""
P = ParamSpec("P")

FAILED, USAGE, UNREACHABLE, MISSING, FORBIDDEN, BUSY, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
STATUSES = {
    0: "done",
    FAILED: "a job failed or was cancelled, or the request was refused",
    USAGE: "the command was wrong, or a file could not be read or written",
    UNREACHABLE: "the service does not answer, or nobody told where it is",
    MISSING: "what was named does not exist, or is not yours",
    FORBIDDEN: "the token is not accepted, or may not do this",
    BUSY: "the service is busy; the same command may succeed later",
    INTERRUPTED: "interrupted by Ctrl-C; jobs go on",
}
"""Exit statuses, which scripts rely on."""


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """Errors become one message and an exit status; with --json, the message is JSON too."""

    @wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            stop("interrupted; jobs go on", INTERRUPTED)
        except Exception as error:
            if (status := _status(error)) is None:
                raise
            told = str(error) if status != USAGE else f"{type(error).__name__}: {error}"
            if _is_of_database(error):
                told = f"the database: {told.splitlines()[0]}"
            message = "\n".join(filter(None, [told, _next(error)]))
            if kwargs.get("as_json"):
                problem = error.problem if isinstance(error, ApiError) else None
                print(json.dumps({"error": message, "status": status, "problem": problem}), file=sys.stderr)
                raise typer.Exit(status) from None
            stop(message, status)

    return command


def _status(error: Exception) -> int | None:
    """The exit status of an error that can be told in a message; None: it is a defect, and shows where."""
    if isinstance(error, ApiError):
        kinds = {
            ArrivedDamaged: FAILED,
            Missing: MISSING,
            TokenRefused: FORBIDDEN,
            NotAllowed: FORBIDDEN,
            TooBusy: BUSY,
        }
        return kinds.get(type(error), UNREACHABLE if error.status == 0 else FAILED)
    if isinstance(error, NotFound):
        return MISSING
    if isinstance(error, (JobFailed, ServiceError, BGPANetError, TimeoutError)) or _is_of_database(error):
        return FAILED
    return USAGE if isinstance(error, (OSError, ValueError)) else None


def _is_of_database(error: Exception) -> bool:
    """Whether the database is away, or refuses who asks. What asks none does not import what asks it."""
    module = sys.modules.get("sqlalchemy.exc")
    return module is not None and isinstance(error, module.OperationalError)


def _next(error: Exception) -> str:
    """What to do after an error, where the error does not say it."""
    if isinstance(error, JobFailed):
        job = error.job["id"]
        return f"`bgpanet logs {job}` shows what it said; `bgpanet retry {job}` goes on from its last checkpoint"
    return "`bgpanet jobs` and `bgpanet dataset list` show what there is" if isinstance(error, Missing) else ""


def hint(text: str) -> None:
    """Says what may come next, to whoever sits at a terminal."""
    if errors.is_terminal:
        errors.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


def stop(message: str, status: int) -> NoReturn:
    """Ends the command with a message and an exit status."""
    errors.print(f"[bold red]error:[/] {escape(message)}")
    raise typer.Exit(status)


def print_json(value: Any) -> None:
    """Prints JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> None:
    """Prints a table, a line a row."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name)
    for row in rows:
        table.add_row(*[escape(str(cell(row))) for cell in columns.values()])
    console.print(table)
