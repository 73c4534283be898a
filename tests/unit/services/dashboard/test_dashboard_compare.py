"""Jobs beside each other, and jobs selected from the list."""

import csv
import io
import json
import re

import pytest
from flask.testing import FlaskClient

from services import views
from services.tokens import Principal
from tests.unit.services.dashboard.browsing import csrf_of, words_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import Service, add_datasets, training_summary

ADMIN = Principal("root", "admin")


@pytest.fixture
def client(sign_in: SignIn) -> FlaskClient:
    return sign_in()


def _selected(client: FlaskClient, ids: list[str], action: str) -> str:
    form = {"csrf": csrf_of(client.get("/jobs")), "job": ids, "action": action, "back": "/jobs?sort=name"}
    answer = client.post("/jobs/selected", data=form)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def test_figures_intervals_and_the_constant_predictor_stand_side_by_side(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    address = f"/compare?job={ids['succeeded']}&job={ids['fold']}"
    words, summary = words_of(client.get(address)), training_summary()
    low, high = summary["intervals"]["balanced_accuracy"]
    value = summary["figures"]["balanced_accuracy"]
    assert words.count(f"{value:.3f} ({low:.3f}\N{EN DASH}{high:.3f})") == 2
    assert "Balanced accuracy, constant predictor 0.143 0.143" in words
    named = "\N{LEFT DOUBLE QUOTATION MARK}BGPANet micro, first look\N{RIGHT DOUBLE QUOTATION MARK}"
    assert f"{named} is of kind train; only cross-validations can be compared" in words
    assert ids["succeeded"] not in words
    charts = json.loads(client.get(address.replace("/compare", "/compare/curves")).text)
    assert [len(chart["lines"]) for chart in charts] == [2, 2]


def test_the_exported_table_has_the_figures_of_each_job(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    answer = client.get(f"/compare/figures.csv?job={ids['succeeded']}&job={ids['cross_validate']}")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="comparison.csv"'
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(answer.text))}
    job = views.get_job(made.context.database, ADMIN, ids["cross_validate"])
    expected = training_summary()["figures"]["macro_f1"], job["summary"]["pooled"]["macro_f1"]
    assert (float(rows["Macro F1"][0]), float(rows["Macro F1"][3])) == expected
    for kind in ("md", "tex"):
        assert "Macro F1" in client.get(f"/compare/figures.{kind}?job={ids['succeeded']}&job={ids['fold']}").text
    assert client.get(f"/compare/figures.exe?job={ids['succeeded']}").status_code == 404


def test_jobs_of_others_do_not_exist_here(ids: dict[str, str], made: Service, sign_in: SignIn) -> None:
    bob = sign_in("bob", "researcher")
    words = words_of(bob.get(f"/compare?job={ids['succeeded']}&job={ids['cancelled']}"))
    assert f"There is no job {ids['succeeded']}, or it is not yours to see" in words
    assert "BGPANet micro, first look" not in words
    assert bob.get(f"/jobs/{ids['succeeded']}/cell?truth=nv&predicted=nv").status_code == 404
    assert bob.get(f"/jobs/{ids['running']}/stream").status_code == 404


def test_what_differs_in_their_specs_is_told(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    one = made.submit(spec={"model": "bgpanet_micro", "training": {"seed": 1}})
    other = made.submit(spec={"model": "bgpanet_micro", "training": {"seed": 2}})
    words = words_of(client.get(f"/compare?job={one},{other}"))
    assert "training.epochs" not in words
    assert "training.seed 1 2" in words
    assert "training.seed 2 1" in words_of(client.get(f"/jobs/{one}?against={other}"))
    assert "There is no job nothing" in words_of(client.get(f"/jobs/{one}?against=nothing"))


def test_at_most_twenty_are_compared(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    ids = [made.submit() for _ in range(21)]
    assert client.get(f"/compare?job={','.join(ids)}").status_code == 400
    assert client.get(f"/compare?job={','.join(ids[:20])}").status_code == 200
    assert "Two jobs at least" in words_of(client.get(f"/compare?job={ids[0]}"))


def test_selected_jobs_are_cancelled_tried_again_or_compared(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    ids = [made.submit(name=f"job {n}") for n in range(3)]
    assert _selected(client, ids[:2], "cancel") == "/jobs?sort=name"
    states = [views.get_job(made.context.database, ADMIN, job_id)["state"] for job_id in ids]
    assert states == ["cancelled", "cancelled", "queued"]
    _selected(client, ids, "retry")
    words = words_of(client.get("/jobs"))
    assert words.count("tries it again") == 2
    assert "Not done:" in words
    assert _selected(client, ids[:2], "compare") == f"/compare?job={ids[0]}&job={ids[1]}"


def test_a_viewer_and_a_stranger_steer_nothing(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    job_id = made.submit(user="ada")
    vera, bob = sign_in("vera", "viewer"), sign_in("bob", "researcher")
    form = {"csrf": csrf_of(vera.get("/jobs")), "job": [job_id], "action": "cancel"}
    assert vera.post("/jobs/selected", data=form).status_code == 403
    _selected(bob, [job_id], "cancel")
    assert "Not done: there is no job" in words_of(bob.get("/jobs"))
    assert views.get_job(made.context.database, ADMIN, job_id)["state"] == "queued"


@pytest.mark.parametrize("sort", ["newest", "oldest", "name", "owner", "priority"])
def test_sorted_lists_show_each_job_once_over_all_their_pages(made: Service, client: FlaskClient, sort: str) -> None:
    add_datasets(made)
    for n in range(120):
        made.submit(name=f"job {n % 7}", user=("ada", "bob")[n % 2], priority=n % 3)
    seen: list[str] = []
    address: str | None = f"/jobs?sort={sort}"
    while address:
        text = client.get(address).text
        seen += re.findall(r'<tr role="row" id="job-([^"]+)"', text)
        found = re.search(r'<a rel="next" href="([^"]+)"', text)
        address = found.group(1).replace("&amp;", "&") if found else None
    rows = [views.get_job(made.context.database, ADMIN, job_id) for job_id in seen]
    assert len(set(seen)) == len(seen) == 120
    keys = {
        "newest": [job["id"] for job in rows][::-1],
        "oldest": [job["id"] for job in rows],
        "name": [(job["name"], job["id"]) for job in rows],
        "owner": [(job["created_by"], job["id"]) for job in rows],
        "priority": [(-job["priority"], *(-ord(c) for c in job["id"])) for job in rows],
    }
    assert keys[sort] == sorted(keys[sort])


def test_children_are_folded_under_their_parent(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    parent = ids["cross_validate"]
    folded, unfolded = client.get("/jobs").text, client.get(f"/jobs?open={parent}").text
    assert f'id="job-{ids["fold"]}"' not in folded
    assert f"/jobs?open={parent}#job-{parent}" in folded
    assert unfolded.count('class="child"') == 5
    assert f'id="job-{ids["fold"]}"' in unfolded
