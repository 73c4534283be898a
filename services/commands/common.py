"""What all verbs share: where they print, tables and JSON, and how an error becomes a message and an exit status."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, NoReturn, ParamSpec

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bgpanet.errors import BGPANetError
from services.client import ApiError, JobFailed
from services.errors import ServiceError

# Where nobody sees a terminal's width, lines are for programs and files.
console = Console(width=None if sys.stdout.isatty() else 1000)  # in a pipe a row stays a line
errors = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="a job's id")]
Columns = Mapping[str, Callable[[Mapping[str, Any]], object]]
"""A table's columns: what each is called, and its cell of a row."""
P = ParamSpec("P")

FAILED, USAGE, UNREACHABLE = 1, 2, 3
"""Exit statuses besides 0: a job failed or was refused, the command was wrong, the service can't be reached."""


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """Errors become one message and an exit status."""

    @wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except ApiError as error:
            stop(str(error), UNREACHABLE if error.status == 0 else FAILED)
        except (JobFailed, ServiceError, BGPANetError) as error:
            stop(str(error), FAILED)
        except (OSError, ValueError, httpx.HTTPError) as error:
            stop(f"{type(error).__name__}: {error}", USAGE)
        except KeyboardInterrupt:
            stop("interrupted; jobs go on", 130)

    return command


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
