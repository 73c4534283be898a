"""`/api/v1/projects` and their members."""

from typing import Any

from flask import Response, jsonify, url_for

from services import projects
from services.api import answers
from services.api.documentation import Section, documented
from services.api.parsing import MemberBody, ProjectBody, parse_body
from services.asking import context, manager, reader
from services.projects import NewProject
from services.views import timestamp

routes = Section(
    "projects",
    __name__,
    url_prefix="/projects",
    tags={"projects": "What several people share, and who they are"},
    paths={"project_id": ("id of a project", "derma"), "user": ("a user's name", "bob")},
)


@routes.get("")
@documented({200: answers.Page[answers.Project]})
def get_projects() -> Response:
    """List the projects that one sees, by id.

    Without one's own, `~user`, and without `shared`, whose data sets everyone sees.
    """
    items = [_shown(row) for row in projects.list_projects(context().database, reader())]
    return jsonify({"items": items, "next_cursor": None})


@routes.post("")
@documented({201: answers.Project}, body=ProjectBody, problems=[409])
def post_project() -> tuple[Response, int, dict[str, str]]:
    """Make a project.

    Who makes it is its first admin.
    """
    principal, body = manager(), parse_body(ProjectBody)
    made = projects.create(context().database, principal, NewProject(body.id, body.title or body.id))
    return jsonify(_shown(made)), 201, {"Location": url_for("api.projects.get_project", project_id=made["id"])}


@routes.get("/<project_id>")
@documented({200: answers.Project})
def get_project(project_id: str) -> Response:
    """Show a project."""
    return jsonify(_shown(projects.get(context().database, reader(), project_id)))


@routes.delete("/<project_id>")
@documented({204: None}, problems=[409])
def delete_project(project_id: str) -> tuple[str, int]:
    """Remove an empty project."""
    projects.remove(context().database, manager(), project_id)
    return "", 204


@routes.get("/<project_id>/members")
@documented({200: answers.Page[answers.Member]})
def get_members(project_id: str) -> Response:
    """List the members of a project, by name."""
    rows = projects.list_members(context().database, reader(), project_id)
    return jsonify({"items": [_member(row) for row in rows], "next_cursor": None})


@routes.put("/<project_id>/members/<user>")
@documented({200: answers.Member}, body=MemberBody, problems=[409])
def put_member(project_id: str, user: str) -> Response:
    """Add a member, or give one another role.

    A viewer sees what is in the project, a researcher also submits and steers, an admin also changes its members.
    """
    principal, body = manager(), parse_body(MemberBody)
    return jsonify(_member(projects.put_member(context().database, principal, project_id, user, body.role)))


@routes.delete("/<project_id>/members/<user>")
@documented({204: None}, problems=[409])
def delete_member(project_id: str, user: str) -> tuple[str, int]:
    """Take a member out of a project; everyone can leave."""
    projects.drop_member(context().database, manager(), project_id, user)
    return "", 204


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "created_at": timestamp(row["created_at"])}


def _member(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "added_at": timestamp(row["added_at"])}
