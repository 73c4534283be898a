"""`bgpanet project`: projects and their members."""

from typing import Annotated
from urllib.parse import quote

import typer

from services.client import Client
from services.commands.common import Json, print_json, print_table, verb
from services.commands.completion import project_ids, roles
from services.commands.completion import project_members as members

app = typer.Typer(no_args_is_help=True, help="Share jobs and data sets with others.")
Project = Annotated[str, typer.Argument(metavar="PROJECT", help="a project's id", autocompletion=project_ids)]
User = Annotated[str, typer.Argument(metavar="USER", autocompletion=members)]


def _members(project: str, user: str | None = None) -> str:
    path = f"projects/{quote(project, safe='')}/members"
    return path if user is None else f"{path}/{quote(user, safe='')}"


@app.command("create")
@verb
def project_create(
    project: Project,
    title: Annotated[str | None, typer.Option(help="what it is about")] = None,
    as_json: Json = False,
) -> None:
    """Make a project; you are its admin.

    Example: bgpanet project create derma --title "Dermoscopy study"
    """
    with Client() as client:
        made = client.post("projects", {"id": project, **({} if title is None else {"title": title})})
    print_json(made) if as_json else print(made["id"])


@app.command("list")
@verb
def project_list(as_json: Json = False) -> None:
    """The projects that you see, and what you are in them.

    Example: bgpanet project list
    """
    with Client() as client:
        rows = client.get("projects")["items"]
    names = ("id", "title", "role", "created_by", "created_at")
    print_json(rows) if as_json else print_table(rows, {n: lambda row, n=n: row[n] or "" for n in names})  # type: ignore[misc]


@app.command("remove")
@verb
def project_remove(project: Project, as_json: Json = False) -> None:
    """Remove a project in which nothing is.

    Example: bgpanet project remove derma
    """
    with Client() as client:
        client.delete(f"projects/{quote(project, safe='')}")
    print_json({"removed": project}) if as_json else print(f"removed {project}")


@app.command("members")
@verb
def project_members(project: Project, as_json: Json = False) -> None:
    """Who is in a project.

    Example: bgpanet project members derma
    """
    with Client() as client:
        rows = client.get(_members(project))["items"]
    names = ("user", "role", "added_by", "added_at")
    print_json(rows) if as_json else print_table(rows, {n: lambda row, n=n: row[n] for n in names})  # type: ignore[misc]


@app.command("add")
@verb
def project_add(
    project: Project,
    user: User,
    role: Annotated[
        str,
        typer.Option(help="viewer, researcher (submits, too) or admin (members, too)", autocompletion=roles),
    ] = "researcher",
    as_json: Json = False,
) -> None:
    """Add a member, or give one another role.

    Example: bgpanet project add derma bob --role viewer
    """
    with Client() as client:
        member = client.put(_members(project, user), {"role": role})
    print_json(member) if as_json else print(f"{user} is a {member['role']} of {project}")


@app.command("drop")
@verb
def project_drop(project: Project, user: User, as_json: Json = False) -> None:
    """Take a member out of a project.

    Example: bgpanet project drop derma bob
    """
    with Client() as client:
        client.delete(_members(project, user))
    print_json({"dropped": user}) if as_json else print(f"{user} is no member of {project} any more")
