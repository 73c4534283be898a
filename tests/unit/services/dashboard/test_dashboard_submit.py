"""Jobs submitted, checked and cloned through a form; the overview and streams beside them."""

import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from services import jobs, views
from services.tokens import Principal
from tests.unit.services.dashboard.browsing import csrf_of, words_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import EVIL, Service, add_datasets

ADMIN = Principal("root", "admin")


@pytest.fixture
def client(sign_in: SignIn) -> FlaskClient:
    return sign_in("ada", "researcher")


def _filled(client: FlaskClient, address: str = "/submit", **changes: str) -> dict[str, str]:
    """What a browser would send of the form at an address, with changes."""
    text = client.get(address).text.partition('<form id="submit"')[2]
    form = {name: value for name, value in re.findall(r'<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"', text)}
    for name, inner in re.findall(r'<select[^>]* name="([^"]+)".*?>(.*?)</select>', text, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', inner) or re.search(r'value="([^"]*)"', inner)
        form[name] = chosen.group(1) if chosen else ""
    return form | changes


def test_an_untouched_form_submits_the_presets(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    form = _filled(client, dataset="lesions-id", **{"spec.model.name": "bgpanet_micro", "name": EVIL})
    answer = client.post("/submit", data=form)
    assert answer.status_code == 303, words_of(answer)
    job = views.get_job(made.context.database, ADMIN, answer.headers["Location"].rpartition("/")[2])
    assert (job["kind"], job["name"], job["created_by"], job["dataset_id"]) == ("train", EVIL, "ada", "lesions-id")
    assert (job["spec"]["model"]["name"], job["spec"]["training"]["epochs"]) == ("bgpanet_micro", 180)


def test_everything_that_is_wrong_is_told_at_its_field_and_nothing_is_stored(
    made: Service, client: FlaskClient
) -> None:
    add_datasets(made)
    wrong = {"spec.training.epochs": "0", "spec.training.batch_size": "many", "spec.split.folds": "3", "name": EVIL}
    form = _filled(client, dataset="lesions-id", **wrong)
    for path, status in (("/submit/check", 200), ("/submit", 422)):
        answer = client.post(path, data=form)
        assert answer.status_code == status
        fields = re.findall(r'<li data-field="([^"]+)"', answer.text)
        assert {"spec.training.epochs", "spec.training.batch_size"} <= set(fields)
        assert EVIL not in answer.text
    assert 'value="many"' in answer.text
    assert views.count_states(made.context.database, ADMIN)["queued"] == 0
    for name, text in (("priority", "1000"), ("time_limit", "soon")):
        assert f'data-field="{name}"' in client.post("/submit/check", data={**form, name: text}).text


def test_a_check_tells_the_same_request_for_curl_and_python(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    changes = {"dataset": "lesions-id", "spec.model.name": "bgpanet_micro", "spec.training.seed": "7", "priority": "3"}
    words = words_of(client.post("/submit/check", data=_filled(client, **changes)))
    assert "All is well: it would be called train bgpanet_micro on lesions" in words
    body = json.loads(words.partition("<<'JSON' ")[2].partition(" JSON")[0])
    spec = {"model": {"name": "bgpanet_micro"}, "training": {"seed": 7}}
    assert body == {"kind": "train", "dataset": "lesions", "priority": 3, "spec": spec}
    call: dict[str, Any] = {}
    source = words.partition("client.submit(")[2].rpartition(")")[0]
    exec(f"call.update(f({source}))", {"call": call, "f": lambda kind, **rest: {"kind": kind, **rest}})  # noqa: S102
    assert call == body


def test_a_clone_changes_what_was_changed_and_names_its_source(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    source = made.submit(spec={"model": "bgpanet_micro", "training": {"epochs": 9, "seed": 3}}, user="ada")
    form = _filled(client, f"/submit?clone={source}", **{"spec.training.seed": "4"})
    job_id = client.post("/submit", data=form).headers["Location"].rpartition("/")[2]
    job, old = (views.get_job(made.context.database, ADMIN, one) for one in (job_id, source))
    assert job["cloned_from"] == source
    assert job["spec"] == {**old["spec"], "training": {**old["spec"]["training"], "seed": 4}}
    assert "training.seed 3 4" in words_of(client.get(f"/jobs/{job_id}"))


def test_nobody_clones_what_is_not_theirs_and_a_viewer_submits_nothing(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    source, bob, vera = made.submit(user="ada"), sign_in("bob", "researcher"), sign_in("vera", "viewer")
    assert bob.get(f"/submit?clone={source}").status_code == 404
    form = {"kind": "train", "dataset": "lesions-id", "csrf": csrf_of(bob.get("/jobs"))}
    assert bob.post("/submit", data={**form, "clone": source}).status_code == 404
    assert vera.get("/submit").status_code == 403
    assert vera.post("/submit", data={**form, "csrf": csrf_of(vera.get("/jobs"))}).status_code == 403
    assert bob.post("/submit", data={**form, "kind": "register"}).status_code == 400


def test_the_overview_tells_what_runs_waits_and_failed(ids: dict[str, str], made: Service, sign_in: SignIn) -> None:
    client = sign_in()
    words = words_of(client.get("/overview"))
    assert "Running 1 BGPANet micro, long run" in words
    assert "40 % · epoch 13 of 30 · 2 min 15 s left balanced accuracy 0." in words
    assert f"Waiting 1 {EVIL}" in words
    assert "Next in the queue , starts in " in words
    assert "Failed lately 1 in all too large a batch" in words
    assert "out of memory The device ran out of memory." in words
    assert '<polyline class="s1" points="0.0,' in client.get("/overview").text
    assert re.search("gpu-0 (busy|lost) NVIDIA H100", words)
    other = words_of(sign_in("carl", "researcher").get("/overview"))
    assert "No jobs yet " in other
    assert "another user" in other


def test_a_page_hears_of_what_comes_after_it_was_made(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    client = sign_in("ada", "researcher")
    job_id = made.submit(user="ada")
    claim = made.claim()
    made.say(claim, 2)
    found = re.search(r'id="stream" hidden data-url="([^"]+)"', client.get(f"/jobs/{job_id}").text)
    assert found is not None
    made.finish(claim, {})
    with client.get(found.group(1)) as answer:
        assert answer.mimetype == "text/event-stream"
        text = answer.get_data(as_text=True)
    kinds = re.findall(r"event: (\w+)", text)
    assert kinds[-2:] == ["state", "end"]
    assert "log" not in kinds
    assert "metrics" not in kinds
    assert 'id="stream"' not in client.get(f"/jobs/{job_id}").text


def test_a_stream_needs_a_session(made: Service) -> None:
    add_datasets(made)
    assert made.app.test_client().get(f"/jobs/{made.submit()}/stream").status_code == 302


def test_a_cell_shows_what_the_network_looked_at(ids: dict[str, str], made: Service, sign_in: SignIn) -> None:
    client = sign_in()
    jobs.cancel(made.context.database, ids["queued"])
    explaining = made.submit("explain", spec={"model": ids["succeeded"]}, user="bob", priority=9)
    image_id = re.findall(r"ISIC_\d+", client.get(f"/jobs/{ids['succeeded']}/cell?truth=nv&predicted=nv").text)[0]
    name = f"explained-{image_id}.png"
    summary = {"images": 1, "methods": ["grad_cam"], "explained": "nv", "fusion": [], "randomised": {}}
    made.finish(made.claim(), summary, {name: b"png", "explanations.json": b"{}"})
    address = f"/jobs/{explaining}/pictures/{name}"
    cell = f"/jobs/{ids['succeeded']}/cell?truth=nv&predicted=nv"
    assert f'src="{address}"' in client.get(cell).text
    with client.get(address) as answer:
        assert (answer.status_code, answer.mimetype, answer.data) == (200, "image/png", b"png")
    assert client.get(f"/jobs/{explaining}/pictures/explanations.json").status_code == 404
    ada = sign_in("ada", "researcher")  # whose training it is, but not whose explanation
    assert name not in ada.get(cell).text
    assert ada.get(address).status_code == 404


def test_a_cell_lists_its_images(ids: dict[str, str], made: Service, sign_in: SignIn) -> None:
    client = sign_in()
    page = client.get(f"/jobs/{ids['succeeded']}").text
    address = re.search(r'<a href="([^"]+/cell\?[^"]+)"', page)
    assert address is not None
    words = words_of(client.get(address.group(1).replace("&amp;", "&")))
    assert "ISIC_00" in words


def test_a_job_is_told_what_to_wait_for_and_what_a_failure_of_a_part_means(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    first, theirs = made.submit(name="the first", user="ada"), made.submit(name="not hers", user="eve")
    text = client.get("/submit?kind=cross_validate").text
    assert f'name="after" value="{first}"' in text
    assert theirs not in text
    chosen = {"dataset": "lesions-id", "spec.model.name": "bgpanet_micro", "spec.split.folds": "3"}
    form = _filled(client, "/submit?kind=cross_validate", **chosen, after=first, on_failure="fail_fast")
    body = json.loads(words_of(client.post("/submit/check", data=form)).partition("<<'JSON' ")[2].partition(" JSON")[0])
    assert (body["after"], body["on_failure"]) == ([first], "fail_fast")
    answer = client.post("/submit", data=form)
    job = views.get_job(made.context.database, ADMIN, answer.headers["Location"].rpartition("/")[2])
    assert (job["after"], job["on_failure"], job["state"]) == ([first], "fail_fast", "queued")
    clone = client.get(f"/submit?clone={job['id']}").text
    assert '<option value="fail_fast" selected>' in clone


def test_what_can_not_be_waited_for_is_told_at_its_field(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    theirs = made.submit(name="not hers", user="eve")
    form = _filled(client, dataset="lesions-id", **{"spec.model.name": "bgpanet_micro"}, on_failure="perhaps")
    assert 'data-field="on_failure"' in client.post("/submit/check", data=form).text
    answer = client.post("/submit", data={**form, "on_failure": "", "after": theirs})
    assert (answer.status_code, 'data-field="after.0"' in answer.text) == (422, True)
    assert "not hers" not in answer.text
    assert views.count_states(made.context.database, ADMIN)["queued"] == 1


def test_several_gpus_are_asked_for_only_by_what_learns(made: Service, client: FlaskClient) -> None:
    assert 'name="spec.resources.gpus"' in client.get("/submit?kind=train").text
    assert 'name="spec.resources.gpus"' not in client.get("/submit?kind=predict").text
