"""`/settings/projects`: projects, their members, and who is what in them."""

from typing import Any

from flask import Blueprint, flash, redirect, url_for
from pydantic import Field
from werkzeug.wrappers import Response as BaseResponse

from bgpanet.errors import InvalidInput, Problem
from services import projects
from services.asking import context, manager, reader
from services.dashboard import plain_forms
from services.dashboard.plain_forms import Filled, Form
from services.dashboard.settings import shown
from services.errors import Conflict
from services.projects import NewProject
from services.settings import ROLES
from services.tokens import Role
from services.views import timestamp

routes = Blueprint("projects", __name__, url_prefix="/settings/projects")


class ProjectForm(Filled):
    """A project to make."""

    id: str
    title: str | None = Field(None, max_length=200)


class MemberForm(Filled):
    """Who is to be what in a project."""

    user: str = Field(max_length=200)
    role: Role


class WhoForm(Filled):
    """Who is to leave a project."""

    user: str = Field(max_length=200)


@routes.get("")
def page() -> str:
    return _list(Form())


@routes.post("")
def create() -> BaseResponse | tuple[str, int]:
    principal = manager()
    try:
        asked = plain_forms.read(ProjectForm)
        made = projects.create(context().database, principal, NewProject(asked.id, asked.title or asked.id))
    except InvalidInput as error:
        return _list(plain_forms.again(ProjectForm, error.problems)), 422
    except Conflict as error:
        return _list(plain_forms.again(ProjectForm, [Problem("id", str(error))])), 409
    flash("You are its first admin. Add those who are to share it.")
    return redirect(url_for("dashboard.projects.show", project_id=made["id"]), code=303)


@routes.get("/<project_id>")
def show(project_id: str) -> str:
    return _show(project_id, Form({"role": "researcher"}))


@routes.post("/<project_id>/remove")
def remove(project_id: str) -> BaseResponse | tuple[str, int]:
    try:
        projects.remove(context().database, manager(), project_id)
    except Conflict as error:
        return _show(project_id, Form({"role": "researcher"}), str(error)), 409
    flash(f"Project {project_id} was removed.")
    return redirect(url_for("dashboard.projects.page"), code=303)


@routes.post("/<project_id>/members")
def put_member(project_id: str) -> BaseResponse | tuple[str, int]:
    """Adds a member, or gives one another role."""
    principal, database = manager(), context().database
    projects.get(database, principal, project_id)
    try:
        asked = plain_forms.read(MemberForm)
    except InvalidInput as error:
        return _show(project_id, plain_forms.again(MemberForm, error.problems)), 422
    try:
        projects.put_member(database, principal, project_id, asked.user, asked.role)
    except Conflict as error:
        return _show(project_id, Form({"role": "researcher"}), str(error)), 409
    flash(f"{asked.user} is {asked.role} of {project_id}.")
    return redirect(url_for("dashboard.projects.show", project_id=project_id), code=303)


@routes.post("/<project_id>/members/drop")
def drop_member(project_id: str) -> BaseResponse | tuple[str, int]:
    principal, database = manager(), context().database
    projects.get(database, principal, project_id)
    user = plain_forms.read(WhoForm).user
    try:
        projects.drop_member(database, principal, project_id, user)
    except Conflict as error:
        return _show(project_id, Form({"role": "researcher"}), str(error)), 409
    flash(f"{user} is no member of {project_id} any more.")
    has_left = projects.role_in(database, principal, project_id) is None
    target = url_for("dashboard.projects.page") if has_left else url_for(".show", project_id=project_id)
    return redirect(target, code=303)


def _list(form: Form) -> str:
    rows = projects.list_projects(context().database, reader())
    may_create = reader().may_manage and reader().role != "viewer"
    return shown("settings_projects.html", projects=[_times(row) for row in rows], form=form, may_create=may_create)


def _show(project_id: str, form: Form, problem: str = "") -> str:
    """One project. problem: why what was asked of it can't be done."""
    database, principal = context().database, reader()
    found = projects.get(database, principal, project_id)
    members = projects.list_members(database, principal, project_id)
    return shown(
        "settings_project.html",
        project=_times(found),
        members=[_times(row) for row in members],
        may_change=principal.may_manage and projects.role_in(database, principal, project_id) == "admin",
        roles={role: role for role in ROLES},
        form=form,
        problem=problem,
    )


def _times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: timestamp(value) if name.endswith("_at") else value for name, value in row.items()}
