"""Who sees what of a project, who may do what in it, and that somebody always can change its members."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, select

from bgpanet.errors import InvalidInput
from services import jobs, projects, registry, views
from services.audit import Act
from services.claims import NewJob
from services.database import Database
from services.errors import Conflict, Forbidden, NotFound
from services.projects import NewProject
from services.tables import Dataset, Job, personal
from services.tokens import Principal
from services.views import JobFilter
from tests.support.clocked import DATASET

ADA, BOB, EVE = (Principal(name, "researcher") for name in ("ada", "bob", "eve"))
ROOT = Principal("root", "admin")


@pytest.fixture
def derma(database: Database) -> str:
    """Ada's project, in which Bob reads."""
    projects.create(database, ADA, NewProject("derma", "Dermoscopy"))
    projects.put_member(database, ADA, "derma", "bob", "viewer")
    return "derma"


def a_job(database: Database, project: str | None = None, user: str = "ada") -> str:
    return jobs.submit(database, NewJob("train", "n", {}, "d", user, project=project))[0]


def seen(database: Database, principal: Principal) -> list[str]:
    return [item["id"] for item in views.list_jobs(database, principal, JobFilter()).items]


def test_what_names_no_project_is_seen_by_its_owner_and_by_admins(database: Database) -> None:
    job = a_job(database)
    assert (seen(database, ADA), seen(database, BOB), seen(database, ROOT)) == ([job], [], [job])
    assert views.get_job(database, ADA, job)["project"] == "~ada"


def test_a_member_sees_what_is_in_the_project_and_nothing_else_of_its_owner(database: Database, derma: str) -> None:
    shared, own = a_job(database, derma), a_job(database)
    assert seen(database, BOB) == [shared]
    assert seen(database, EVE) == []
    with pytest.raises(NotFound):
        views.get_job(database, BOB, own)


def test_whoever_left_sees_nothing_any_more_not_even_what_is_theirs(database: Database, derma: str) -> None:
    projects.put_member(database, ADA, derma, "bob", "researcher")
    job = a_job(database, derma, "bob")
    assert seen(database, BOB) == [job]
    projects.drop_member(database, BOB, derma, "bob")
    assert seen(database, BOB) == []
    assert seen(database, ADA) == [job]


@pytest.mark.parametrize(
    ("who", "project", "role"),
    [
        (ADA, "~ada", "admin"),
        (BOB, "~ada", None),
        (ADA, "derma", "admin"),
        (BOB, "derma", "viewer"),
        (EVE, "derma", None),
        (ROOT, "derma", "admin"),
        (ROOT, "~ada", "admin"),
        (ADA, "shared", "viewer"),
        (ROOT, "shared", "admin"),
        (ROOT, "nowhere", None),
        (ADA, "nowhere", None),
    ],
)
def test_what_somebody_is_in_a_project(
    database: Database, derma: str, who: Principal, project: str, role: str | None
) -> None:
    assert projects.role_in(database, who, project) == role


def test_things_go_where_one_may_submit(database: Database, derma: str) -> None:
    assert projects.chosen(database, BOB, None) == "~bob"
    assert projects.chosen(database, ADA, derma) == derma
    with pytest.raises(Forbidden):
        projects.chosen(database, BOB, derma)
    with pytest.raises(Forbidden):
        projects.chosen(database, ADA, "shared")
    with pytest.raises(NotFound):
        projects.chosen(database, EVE, derma)


def changes_of_members(project: str) -> list[Callable[[Database, Principal], Any]]:
    return [
        lambda database, who: projects.put_member(database, who, project, "bob", "admin"),
        lambda database, who: projects.put_member(database, who, project, "eve", "viewer"),
        lambda database, who: projects.drop_member(database, who, project, "ada"),
        lambda database, who: projects.remove(database, who, project),
    ]


def test_only_admins_of_a_project_change_it(database: Database, derma: str) -> None:
    before = projects.list_members(database, ADA, derma)
    for change in changes_of_members(derma):
        with pytest.raises(Forbidden):
            change(database, BOB)
        with pytest.raises(NotFound):
            change(database, EVE)
    assert projects.list_members(database, ADA, derma) == before


def test_a_name_that_no_user_can_have_is_refused(database: Database, derma: str) -> None:
    with pytest.raises(InvalidInput, match="200 characters at most"):
        projects.put_member(database, ADA, derma, "u" * 201, "viewer")
    assert projects.put_member(database, ADA, derma, "u" * 200, "viewer")["user"] == "u" * 200


def test_somebody_always_can_change_the_members(database: Database, derma: str) -> None:
    for who in (ADA, ROOT):
        with pytest.raises(Conflict, match="only admin"):
            projects.drop_member(database, who, derma, "ada")
        with pytest.raises(Conflict, match="only admin"):
            projects.put_member(database, who, derma, "ada", "viewer")
    projects.put_member(database, ADA, derma, "bob", "admin")
    projects.drop_member(database, ADA, derma, "ada")
    assert [row["user"] for row in projects.list_members(database, BOB, derma)] == ["bob"]


def test_only_an_empty_project_goes(database: Database, derma: str) -> None:
    a_job(database, derma)
    with pytest.raises(Conflict, match="jobs"):
        projects.remove(database, ADA, derma)
    with database.write() as session:
        session.execute(Job.__table__.update().values(project="~ada"))  # type: ignore[attr-defined]
    projects.remove(database, ADA, derma)
    assert projects.list_projects(database, ADA) == []


@pytest.mark.parametrize("name", ["shared", "~ada", "a", "Derma", "a/b", "-a", "a" * 64, ""])
def test_a_project_has_a_name_that_can_stand_in_addresses(database: Database, name: str) -> None:
    with pytest.raises(InvalidInput):
        projects.create(database, ADA, NewProject(name, "x"))


def test_a_name_is_taken_once(database: Database, derma: str) -> None:
    with pytest.raises(Conflict):
        projects.create(database, EVE, NewProject(derma, "x"))
    assert projects.role_in(database, EVE, derma) is None


def test_a_job_that_is_tried_again_and_its_children_stay_in_their_project(database: Database, derma: str) -> None:
    child = NewJob("train", "fold 0", {}, "d", "ada", project=derma)
    parent, _ = jobs.submit(database, NewJob("cross_validate", "n", {}, "d", "ada", children=[child], project=derma))
    jobs.cancel(database, parent)
    jobs.retry(database, parent)
    with database.read() as session:
        assert set(session.scalars(select(Job.project))) == {derma}


# ── Data sets ─────────────────────────────────────────────────────────────────────────────────────────────────────


def add_dataset(database: Database, dataset_id: str, project: str, version: int = 1, digest: str = "1") -> None:
    values = {**DATASET, "id": dataset_id, "project": project, "version": version, "digest": digest * 64}
    with database.write() as session:
        session.execute(insert(Dataset).values(**values))


def test_everyone_sees_what_is_shared_and_members_what_is_in_their_project(database: Database, derma: str) -> None:
    add_dataset(database, "hers", "~ada")
    add_dataset(database, "theirs", derma)

    def ids(who: Principal) -> set[str]:
        return {item["id"] for item in views.list_datasets(database, who).items}

    assert (ids(ADA), ids(BOB), ids(EVE)) == ({"d", "hers", "theirs"}, {"d", "theirs"}, {"d"})
    with pytest.raises(NotFound):
        views.find_dataset(database, EVE, "theirs")


def test_a_name_means_ones_own_data_set_before_another_project_s(database: Database, derma: str) -> None:
    add_dataset(database, "theirs", derma, version=7)
    add_dataset(database, "bobs", personal("bob"))
    assert views.find_dataset(database, BOB, "lesions").id == "bobs"
    assert views.find_dataset(database, ADA, "lesions").id == "theirs"  # the highest version of what she sees
    assert views.find_dataset(database, BOB, "derma/lesions").id == "theirs"
    assert views.find_dataset(database, BOB, "derma/lesions@7").id == "theirs"
    assert views.find_dataset(database, BOB, "shared/lesions").id == "d"
    with pytest.raises(NotFound, match="did you mean"):
        views.find_dataset(database, BOB, "~ada/lesions")


def test_the_same_content_in_another_project_is_a_data_set_of_its_own(database: Database) -> None:
    """Else whoever registers it would be told that somebody else has it, and given what they may not see."""
    add_dataset(database, "hers", "~ada", digest="7")
    add_dataset(database, "his", "~bob")
    facts = {
        **{name: DATASET[name] for name in ("format", "synthetic", "classes", "images", "groups", "group_unit")},
        **{"class_counts": [], "columns": [], "licence": None, "citation": None, "locked": {}, "findings": []},
        "digest": "7" * 64,
    }
    with database.write() as session:
        session.execute(Dataset.__table__.update().where(Dataset.id == "his").values(state="registering", version=None))  # type: ignore[attr-defined]
        accepted = registry.accept(session, "his", facts, _files())
    assert accepted == "his"
    assert views.get_dataset(database, BOB, "his")["version"] == 1


def _files() -> dict[str, dict[str, Any]]:
    from bgpanet.data.pack import IMAGES, INDEX

    return {name: {"key": "k", "sha256": "0" * 64, "size": 1} for name in (IMAGES, INDEX)}


def test_the_same_key_in_another_project_asks_for_something_else(database: Database, derma: str) -> None:
    new = NewJob("train", "n", {}, "d", "ada", idempotency_key="k")
    jobs.submit(database, new)
    with pytest.raises(Conflict, match="idempotency key"):
        jobs.submit(database, replace(new, project=derma))


def test_nothing_is_put_into_a_project_that_is_gone(database: Database, derma: str) -> None:
    projects.remove(database, ADA, derma)
    act = Act(ADA, "job.submit", project=derma)
    with pytest.raises(NotFound):
        jobs.submit(
            database, NewJob("train", "n", {}, "d", "ada", project=derma), also=projects.noted_in(database, act)
        )
    assert seen(database, ROOT) == []
