"""Projects: what jobs, data sets and uploads belong to, who sees them, and who may do what in them.

Everything belongs to exactly one project. Whoever names none uses their own, `~user`, which has no other members and
no row. In `shared` are data sets that everyone sees and only admins put there. All others are made by people, who add
members: a viewer sees what is there, a researcher also submits and steers, an admin also changes the members. What is
in none of somebody's projects does not exist for them (`NotFound`). An admin of the service is one in all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, insert, literal, select, true, union_all, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from bgpanet.errors import InvalidInput
from services import audit
from services.audit import Act
from services.database import Also, Database, now_ms
from services.errors import Conflict, Forbidden, NotFound
from services.tables import SHARED, Dataset, Job, Project, ProjectMember, RegisteredModel, Upload, personal
from services.tokens import ROLES, Principal, Role

ID = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")
LONGEST_USER = 200  # characters, as in the tables


@dataclass(frozen=True)
class NewProject:
    """A project to make."""

    id: str
    title: str


# ── Who sees, and who may ─────────────────────────────────────────────────────────────────────────────────────────


def visible(principal: Principal, project: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether a row is seen, by the column that holds its project: the one condition of all queries for people."""
    if principal.is_admin:
        return true()
    memberships = select(ProjectMember.project).where(ProjectMember.user == principal.user)
    return project.in_(union_all(select(literal(personal(principal.user))), select(literal(SHARED)), memberships))


def seen_by(session: Session, principal: Principal) -> list[str] | None:
    """The projects that `visible` is true of, for lists that have to be fast; None: all."""
    if principal.is_admin:
        return None
    memberships = select(ProjectMember.project).where(ProjectMember.user == principal.user)
    return [personal(principal.user), SHARED, *session.scalars(memberships)]


def role_in(database: Database, principal: Principal, project: str) -> Role | None:
    """What somebody is in a project; None: they don't see it."""
    with database.read() as session:
        return _role_in(session, principal, project)


def _role_in(session: Session, principal: Principal, project: str) -> Role | None:
    if principal.is_admin:
        is_known = project == SHARED or project.startswith("~") or session.get(Project, project) is not None
        return "admin" if is_known else None
    if project == personal(principal.user):
        return "admin"
    if project == SHARED:
        return "viewer"
    member = session.get(ProjectMember, (project, principal.user))
    return None if member is None else next(role for role in ROLES if role == member.role)


def require(database: Database, principal: Principal, project: str, least: Role) -> None:
    """Raises NotFound where somebody doesn't see a project, Forbidden where they are less in it than is needed."""
    with database.read() as session:
        _require(session, principal, project, least)


def _require(session: Session, principal: Principal, project: str, least: Role) -> None:
    role = _role_in(session, principal, project)
    if role is None:
        raise NotFound(f"there is no project {project!r}")
    if ROLES.index(role) < ROLES.index(least):
        raise Forbidden(f"you are a {role} of project {project}; this needs a role of {least}")


def chosen(database: Database, principal: Principal, asked: str | None) -> str:
    """Where something is put: the project that was asked for, else one's own. Raises NotFound, Forbidden."""
    if asked is None:
        return personal(principal.user)
    require(database, principal, asked, "researcher")
    return asked


def noted_in(database: Database, act: Act) -> Also:
    """`audit.noted` for something new in `act.project`, which is there until the transaction ends: else it could be
    removed at the same moment, and made anew by somebody who would then see what is in it. Raises NotFound."""

    def also(session: Session, subject: str) -> None:
        _stay(session, act.project)  # before the trail is locked: nothing waits for anything from there on
        audit.append(database, session, replace(act, subject=act.subject or subject))

    return also


def _stay(session: Session, project: str | None) -> None:
    if project is None or project == SHARED or project.startswith("~"):
        return
    held = select(Project.id).where(Project.id == project).with_for_update(read=True)
    if session.scalar(held) is None:
        raise NotFound(f"there is no project {project!r}")


# ── Projects ──────────────────────────────────────────────────────────────────────────────────────────────────────


def create(database: Database, principal: Principal, new: NewProject) -> dict[str, Any]:
    """Makes a project, whose admin is who makes it. Returns it as `get` does.

    Raises:
        InvalidInput: its id can't be one.
        Forbidden: a viewer makes none.
        Conflict: the id is taken.
    """
    if principal.role == "viewer":
        raise Forbidden("a viewer makes no projects")
    if new.id == SHARED or not ID.fullmatch(new.id):
        raise InvalidInput.one("id", f"must be 2 to 63 small letters, digits or dashes, and not {SHARED!r}")
    try:
        with database.write() as session:
            session.execute(insert(Project).values(**vars(new), created_by=principal.user, created_at=now_ms()))
            _add(session, principal, new.id, principal.user, "admin")
            act = Act(principal, "project.create", new.id, new.id, {"title": new.title})
            audit.append(database, session, act)
    except IntegrityError:
        raise Conflict(f"the id {new.id!r} is taken; choose another") from None
    return get(database, principal, new.id)


def list_projects(database: Database, principal: Principal) -> list[dict[str, Any]]:
    """The projects that somebody sees, by id, without those that have no row."""
    query = select(Project).where(visible(principal, Project.id)).order_by(Project.id)
    mine = select(ProjectMember.project, ProjectMember.role).where(ProjectMember.user == principal.user)
    with database.read() as session:
        roles = {project: role for project, role in session.execute(mine)}
        return [_shown(row, roles.get(row.id)) for row in session.scalars(query)]


def get(database: Database, principal: Principal, project: str) -> dict[str, Any]:
    """One project, and `role`: what one is in it; None for an admin of the service who is no member.

    Raises NotFound, also for those that have no row.
    """
    with database.read() as session:
        row = session.scalar(select(Project).where(visible(principal, Project.id), Project.id == project))
        if row is None:
            raise NotFound(f"there is no project {project!r}")
        member = session.get(ProjectMember, (project, principal.user))
        return _shown(row, None if member is None else member.role)


def remove(database: Database, principal: Principal, project: str) -> None:
    """Takes an empty project away. Raises NotFound, Forbidden; Conflict where something is in it."""
    with database.write() as session:
        _hold(session, principal, project)
        for table, what in ((Job, "jobs"), (Dataset, "data sets"), (Upload, "uploads"), (RegisteredModel, "models")):
            if session.scalar(select(exists().where(table.project == project))):
                raise Conflict(f"there are {what} in project {project}; only an empty one can be removed")
        session.execute(delete(ProjectMember).where(ProjectMember.project == project))
        session.execute(delete(Project).where(Project.id == project))
        audit.append(database, session, Act(principal, "project.remove", project, project))


# ── Members ───────────────────────────────────────────────────────────────────────────────────────────────────────


def list_members(database: Database, principal: Principal, project: str) -> list[dict[str, Any]]:
    """The members of a project, by name. Raises NotFound."""
    get(database, principal, project)
    query = select(ProjectMember).where(ProjectMember.project == project).order_by(ProjectMember.user)
    with database.read() as session:
        return [_member(row) for row in session.scalars(query)]


def put_member(database: Database, principal: Principal, project: str, user: str, role: Role) -> dict[str, Any]:
    """Adds somebody to a project, or gives them another role in it. Returns the member.

    Raises:
        NotFound: there is no such project.
        Forbidden: only its admins may.
        Conflict: nobody would be left who is its admin.
        InvalidInput: no user can be called like that.
    """
    if len(user) > LONGEST_USER:
        raise InvalidInput.one("user", f"must have {LONGEST_USER} characters at most, not {len(user)}")
    with database.write() as session:
        _hold(session, principal, project)
        if role != "admin":
            _refuse_last_admin(session, project, user)
        known = session.get(ProjectMember, (project, user))
        if known is None:
            _add(session, principal, project, user, role)
        else:
            which = (ProjectMember.project == project, ProjectMember.user == user)
            session.execute(update(ProjectMember).where(*which).values(role=role))
            session.expire(known)
        member = _member(session.get_one(ProjectMember, (project, user)))
        audit.append(database, session, Act(principal, "member.put", user, project, {"role": role}))
        return member


def drop_member(database: Database, principal: Principal, project: str, user: str) -> None:
    """Takes somebody out of a project: its admins anyone, everyone themselves.

    Raises:
        NotFound: there is no such project, or no such member.
        Forbidden: only its admins may.
        Conflict: nobody would be left who is its admin.
    """
    with database.write() as session:
        _hold(session, principal, project, least="viewer" if user == principal.user else "admin")
        if session.get(ProjectMember, (project, user)) is None:
            raise NotFound(f"{user!r} is no member of project {project}")
        _refuse_last_admin(session, project, user)
        which = (ProjectMember.project == project, ProjectMember.user == user)
        session.execute(delete(ProjectMember).where(*which))
        audit.append(database, session, Act(principal, "member.drop", user, project))


def _hold(session: Session, principal: Principal, project: str, least: Role = "admin") -> None:
    """Locks a project, whose members then stay as they are until the transaction ends."""
    row = session.scalar(select(Project.id).where(Project.id == project).with_for_update())
    if row is None:
        raise NotFound(f"there is no project {project!r}")
    _require(session, principal, project, least)


def _refuse_last_admin(session: Session, project: str, user: str) -> None:
    query = select(ProjectMember.user).where(ProjectMember.project == project, ProjectMember.role == "admin")
    if session.scalars(query).all() == [user]:
        raise Conflict(f"{user} is the only admin of project {project}; make another member one first")


def _add(session: Session, principal: Principal, project: str, user: str, role: Role) -> None:
    values = {"project": project, "user": user, "role": role, "added_by": principal.user}
    session.execute(insert(ProjectMember).values(**values, added_at=now_ms()))


def _shown(row: Project, role: str | None) -> dict[str, Any]:
    return {**_told(row, ("id", "title", "created_by", "created_at")), "role": role}


def _member(row: ProjectMember) -> dict[str, Any]:
    return _told(row, ("user", "role", "added_by", "added_at"))


def _told(row: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
