"""What a shell offers for the words of a command: jobs, data sets, models and so on, asked of the service.

Whoever presses a key waits for it, and sees whatever is printed: it asks once, briefly, and says nothing where that
fails.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

import typer

from services.client_errors import ApiError

if TYPE_CHECKING:
    from services.client import Client

MOST = 50
SECONDS = 2.0

Offer = Iterable[tuple[str, str]]
"""Words with what each is."""


def _quietly(function: Callable[..., Offer]) -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    """Offers those words that begin with what was typed."""

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        try:
            found = (item for item in function(ctx) if item[0].startswith(incomplete))
            return list(islice(found, MOST))
        except (ApiError, OSError, ValueError, KeyError):
            return []

    return complete


def _client() -> "Client":
    from services.client import Client
    from services.connection import Limits

    return Client(limits=Limits(connect=SECONDS, read=SECONDS, tries=1))


@_quietly
def job_ids(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """The latest jobs."""
    with _client() as client:
        for job in islice(client.jobs(), 4 * MOST):
            yield job.id, f"{job.state} {job.values['name']}"


@_quietly
def dataset_names(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Data sets, each name once."""
    seen: set[str] = set()
    with _client() as client:
        for row in islice(client.datasets(), 4 * MOST):
            if row["name"] not in seen:
                seen.add(row["name"])
                yield row["name"], f"{row['state']}, {row['format']}"


@_quietly
def artifact_names(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """The files of the job that was named before."""
    with _client() as client:
        for row in client.job(ctx.params["job_id"]).artifacts():
            yield row["name"], f"{row['size']} bytes"


@_quietly
def worker_names(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Workers, each once."""
    with _client() as client:
        yield from dict.fromkeys((row["worker"], row["host"]) for row in client.workers())


@_quietly
def model_names(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Registered models."""
    with _client() as client:
        for row in islice(client.registry.list(), MOST):
            yield row["name"], f"{row['versions']} versions"


@_quietly
def model_references(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Registered models, each with its aliases."""
    with _client() as client:
        for row in islice(client.registry.list(), MOST):
            yield row["name"], f"version {row['newest'] or 'none'}"
            for alias, number in row["aliases"].items():
                yield f"{row['name']}@{alias}", f"version {number}"


@_quietly
def model_aliases(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """The aliases of the model that was named before."""
    with _client() as client:
        for alias, number in client.registry.model(ctx.params["name"])["aliases"].items():
            yield alias, f"version {number}"


@_quietly
def project_ids(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Projects that one sees."""
    with _client() as client:
        for row in client.get("projects")["items"]:
            yield row["id"], row["title"]


@_quietly
def project_members(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Who is in the project that was named before."""
    with _client() as client:
        for row in client.get(f"projects/{quote(ctx.params['project'], safe='')}/members")["items"]:
            yield row["user"], row["role"]


@_quietly
def roles(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Roles."""
    from services.settings import ROLES

    return ((role, "") for role in ROLES)


@_quietly
def networks(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Networks that can be trained."""
    from bgpanet.catalogue import MODELS

    return ((name, entry.title) for name, entry in MODELS.items())


@_quietly
def kinds(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Kinds of jobs."""
    from typing import get_args

    from bgpanet.specs import Kind

    return ((name, "") for name in get_args(Kind))


@_quietly
def formats(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Formats of data sets."""
    from bgpanet.data.readers import described

    return ((name, text.partition("\n")[0]) for name, text in described().items())
