"""The pages of registered models through Flask's test client."""

import io
import threading
import time
import zipfile

import pytest
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import select, update

from services import jobs, models, projects, trials
from services.dashboard.markdown import rendered
from services.models import Wanted
from services.order import Offer
from services.projects import NewProject
from services.tables import Job, ModelVersion, RegisteredModel
from services.tokens import Principal
from tests.support.trained import trained
from tests.unit.services.dashboard.browsing import csrf_of, words_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import EVIL, Service, add_datasets

ADA, ROOT = Principal("ada", "researcher"), Principal("root", "admin")


@pytest.fixture
def ada(made: Service, sign_in: SignIn) -> FlaskClient:
    add_datasets(made)
    return sign_in("ada", "researcher")


def register(made: Service, weights: str = "weights", name: str = "lesions", **more: str) -> str:
    """The id of the job whose model was registered."""
    job_id = trained(made.context, "ada", weights, "lesions-id")
    models.register(made.context, ADA, Wanted(name, job_id, **more))
    return job_id


def send(client: FlaskClient, path: str, **form: object) -> tuple[int, str]:
    """Status of a form that is sent, and the words of the page that comes then."""
    answer = client.post(path, data={"csrf": csrf_of(client.get("/jobs")), **form}, follow_redirects=True)
    return answer.status_code, words_of(answer)


# ── Lists ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_list_says_how_a_model_is_registered(ada: FlaskClient) -> None:
    page = ada.get("/models")
    assert "bgpanet model register lesions JOB" in words_of(page)
    assert "curl -X POST http://localhost/api/v1/models" in page.text
    assert "No such model" in words_of(ada.get("/models?q=nothing"))


def test_the_list_tells_versions_aliases_figure_and_where_a_model_came_from(made: Service, ada: FlaskClient) -> None:
    register(made, "a", alias="champion")
    job_id = register(made, "b")
    page = ada.get("/models")
    words = words_of(page)
    assert "2 versions, the newest 2" in words
    assert "champion → stands for version 1" in words
    assert "0.800 (0.700" in words
    assert f'href="/jobs/{job_id}"' in page.text
    assert "lesions" in words_of(ada.get("/models?q=LES"))


def test_the_list_goes_on_where_a_page_ends(made: Service, ada: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        register(made, f"weights {number}", f"model-{number}")
    monkeypatch.setattr(models.list_models, "__defaults__", (None, None, 2))
    first = ada.get("/models?q=model")
    assert "model-2" in first.text
    assert "model-0" not in first.text
    link = first.text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    second = ada.get(link)
    assert "model-0" in second.text
    assert "model-2" not in second.text


# ── One model ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_models_page_shows_figures_origin_files_card_and_the_constant_predictor(
    made: Service, ada: FlaskClient
) -> None:
    job_id = register(made, alias="champion", note="the first")
    figures = {"balanced_accuracy": 0.8, "n": 61, "constant_predictor": {"balanced_accuracy": 0.143, "class": "nv"}}
    metrics = {"figures": figures, "intervals": {"balanced_accuracy": [0.7, 0.9]}}
    with made.context.database.write() as session:
        session.execute(update(ModelVersion).values(metrics=metrics))
    page = ada.get("/models/lesions")
    words = words_of(page)
    for told in ("lesions version 1", "champion", "the first", "0.700", "always nv : 0.143", "on 61 test images"):
        assert told in words
    assert f'href="/jobs/{job_id}"' in page.text
    assert 'href="/datasets/lesions-id"' in page.text
    assert "000000000000" in words  # of the data set's digest
    assert "4 files" in words
    assert "<h3>A card</h3>" in page.text
    assert "/submit?kind=predict&amp;model=lesions@1" in page.text
    assert 'value="lesions@1"' in ada.get("/submit?kind=predict&model=lesions@1").text
    assert "no diagnosis" in words


def test_any_version_has_its_page_and_the_newest_is_shown_first(made: Service, ada: FlaskClient) -> None:
    register(made, "a", alias="champion")
    register(made, "b")
    assert "lesions version 2" in words_of(ada.get("/models/lesions"))
    for which in ("1", "champion"):
        assert "lesions version 1" in words_of(ada.get(f"/models/lesions/versions/{which}"))
    assert ada.get("/models/lesions/versions/3").status_code == 404
    assert ada.get("/models/nothing").status_code == 404


def test_a_version_that_is_being_checked_was_refused_or_removed_says_so(made: Service, ada: FlaskClient) -> None:
    register(made)
    found = [{"level": "refused", "where": "model.pt", "what": f"can run code {EVIL}", "rows": [], "count": 0}]
    for state, told in (("importing", "a worker checks it"), ("refused", "can run code"), ("removed", "were removed")):
        with made.context.database.write() as session:
            values = {"error": "can run code", "findings": found, "removed_by": "ada", "removed_at": 1}
            session.execute(update(ModelVersion).values(state=state, metrics={}, **values))
        page = ada.get("/models/lesions")
        assert told in words_of(page)
        assert EVIL not in page.text
        assert 'id="try"' not in page.text
        assert ("data-active" in page.text) == (state == "importing")
        live = ada.get("/models/lesions", headers={"X-Live": "1"}).text
        assert live.count("data-live") == 2
        assert f'badge {state}"' in live.partition("</section>")[0]


def test_a_card_from_a_stranger_stays_text_and_loads_nothing() -> None:
    html = rendered(f"# One\n### Two\n{EVIL} <b>x</b>\n\n[a](javascript:alert(1)) ![p](https://x.example/p.png)\n")
    assert "<h3>One</h3>" in html
    assert "<h4>Two</h4>" in html
    for part in ("<script", "<b>", "<img", 'href="javascript'):
        assert part not in html
    assert "<thead>" not in rendered("| | |\n|---|---|\n| a | b |\n")
    assert "<thead>" in rendered("| x | y |\n|---|---|\n| a | b |\n")


# ── Registering ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_training_is_registered_from_its_page(made: Service, ada: FlaskClient) -> None:
    job_id = trained(made.context, "ada", dataset="lesions-id")
    assert "Register as a model" in words_of(ada.get(f"/jobs/{job_id}"))
    status, words = send(ada, "/models/new", job=job_id, name="lesions", alias="champion", note="", project="")
    assert (status, "Registered as lesions@1." in words) == (200, True)
    assert "Registered as lesions@1" in words_of(ada.get(f"/jobs/{job_id}"))
    status, words = send(ada, "/models/new", job=job_id, name="lesions")
    assert "lesions@1 has this very content already." in words
    queued = made.submit(user="ada")
    assert "Register as a model" not in words_of(ada.get(f"/jobs/{queued}"))


def test_what_is_wrong_with_a_registration_stands_beside_what_was_filled_in(made: Service, ada: FlaskClient) -> None:
    job_id = made.submit(user="ada")
    form = {"csrf": csrf_of(ada.get("/jobs")), "job": job_id, "name": EVIL, "alias": "3", "note": "x"}
    answer = ada.post("/models/new", data=form)
    assert answer.status_code == 422
    for field in ("name", "alias", "job"):
        assert f"<code>{field}</code>" in answer.text
    assert EVIL not in answer.text
    assert f'value="{job_id}"' in answer.text
    too_long = ada.post("/models/new", data={**form, "note": "x" * 2001})
    assert "<code>note</code>" in too_long.text


def test_the_job_of_another_is_registered_by_nobody_else(made: Service, ada: FlaskClient, sign_in: SignIn) -> None:
    job_id, bob = trained(made.context, "ada", dataset="lesions-id"), sign_in("bob", "researcher")
    unknown = "the id of a training"  # stands there in place of what the job is
    assert unknown in words_of(bob.get(f"/models/new?job={job_id}"))
    assert unknown not in words_of(ada.get(f"/models/new?job={job_id}"))
    status, words = send(bob, "/models/new", job=job_id, name="mine")
    assert (status, f"there is no job {job_id}" in words) == (422, True)
    assert models.list_models(made.context.database, Principal("bob", "researcher")).items == []


def test_a_model_goes_into_a_project_where_one_may_put_it(made: Service, ada: FlaskClient, sign_in: SignIn) -> None:
    projects.create(made.context.database, ADA, NewProject("study", "Ours"))
    projects.put_member(made.context.database, ADA, "study", "bob", "viewer")
    job_id = trained(made.context, "ada", dataset="lesions-id")
    assert "<option>study</option>" in ada.get(f"/models/new?job={job_id}").text
    send(ada, "/models/new", job=job_id, name="lesions", project="study", alias="champion")
    bob = sign_in("bob", "researcher")
    assert "<option>study</option>" not in bob.get("/models/new").text
    page = words_of(bob.get("/models/lesions"))  # a viewer of the project sees it, and may try it, but change nothing
    assert "Researchers of study set and move them" in page
    assert "Remove" not in page
    assert send(bob, "/models/lesions/aliases", alias="mine", version="1")[0] == 403
    assert send(bob, "/models/lesions/aliases/champion/remove")[0] == 403
    assert send(bob, "/models/lesions/remove", version="1")[0] == 403
    assert models.get_model(made.context.database, ADA, "lesions")["aliases"] == {"champion": 1}


# ── Changing ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_aliases_are_set_moved_and_removed(made: Service, ada: FlaskClient) -> None:
    register(made, "a")
    register(made, "b")

    def aliases() -> object:
        return models.get_model(made.context.database, ADA, "lesions")["aliases"]

    where = "/models/lesions/aliases"
    assert send(ada, where, alias="champion", version="1", expected="0")[0] == 200
    assert aliases() == {"champion": 1}
    status, words = send(ada, where, alias="champion", version="2", expected="0")
    assert (status, "stands for version 1" in words) == (409, True)
    assert send(ada, where, alias="champion", version="2", expected="1")[0] == 200
    assert aliases() == {"champion": 2}
    for wrong in ({"alias": EVIL, "version": "1"}, {"alias": "x", "version": "one"}, {"alias": "x"}):
        answer = ada.post(where, data={"csrf": csrf_of(ada.get("/jobs")), **wrong})
        assert answer.status_code == 422
        assert EVIL not in answer.text
    assert send(ada, f"{where}/champion/remove")[0] == 200
    assert aliases() == {}


def test_a_version_is_removed_and_then_all_of_them(made: Service, ada: FlaskClient) -> None:
    for weights in "abc":
        register(made, weights)
    assert "Version 3 was removed." in send(ada, "/models/lesions/remove", version="3")[1]
    page = words_of(ada.get("/models/lesions"))
    assert "lesions version 2" in page
    assert "Remove all 2 versions" in page
    assert "All versions were removed." in send(ada, "/models/lesions/remove", version="")[1]
    states = [one["state"] for one in models.list_versions(made.context.database, ADA, "lesions")]
    assert states == ["removed"] * 3
    assert "no version is ready" in words_of(ada.get("/models"))


def test_a_viewer_looks_and_changes_nothing(made: Service, ada: FlaskClient, sign_in: SignIn) -> None:
    register(made)
    with made.context.database.write() as session:
        session.execute(update(RegisteredModel).values(project="shared"))
    viewer = sign_in("eve", "viewer")
    page = viewer.get("/models/lesions")
    assert page.status_code == 200
    for part in ('id="try"', "Predict with it", "Write as ONNX", "Remove"):
        assert part not in page.text
    where = "/models/lesions/versions/1"
    for path in ("/models/new", "/models/lesions/aliases", "/models/lesions/remove", f"{where}/onnx", f"{where}/try"):
        assert send(viewer, path)[0] == 403
    assert viewer.get("/models/new").status_code == 403


def test_no_form_of_another_site_changes_a_model(made: Service, ada: FlaskClient) -> None:
    register(made, alias="champion")
    where = "/models/lesions"
    for path in ("aliases", "aliases/champion/remove", "remove", "versions/1/onnx", "versions/1/try"):
        assert ada.post(f"{where}/{path}", data={"version": "1", "alias": "x"}).status_code == 403
    assert models.get_model(made.context.database, ADA, "lesions")["aliases"] == {"champion": 1}


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_version_is_had_as_a_zip_and_written_as_onnx(made: Service, ada: FlaskClient) -> None:
    register(made)
    answer = ada.get("/models/lesions/versions/1/files")
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert "model.safetensors" in archive.namelist()
    status, words = send(ada, "/models/lesions/versions/1/onnx")
    assert (status, "ONNX, job" in words) == (200, True)
    claim = jobs.claim(made.context.database, "w", Offer(["any"]), 30)
    assert claim is not None
    made.finish(claim, {}, {"model.onnx": b"onnx", "onnx.json": b"{}"})
    page = ada.get("/models/lesions")
    assert f'href="/jobs/{claim.lease.job_id}/artifacts/model.onnx"' in page.text


# ── Trying ───────────────────────────────────────────────────────────────────────────────────────────────────────


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 150, 140)).save(file, "JPEG")
    return file.getvalue()


def answering(made: Service, overlay: bool = False) -> threading.Thread:
    """A thread that answers the next trial as a worker does."""

    def work() -> None:
        claim = None
        while claim is None:
            time.sleep(0.01)  # others want to write, too
            claim = jobs.claim(made.context.database, "w", Offer(["any"]), 30)
        explained = claim.spec["explained"] or "nv"
        row = {"predicted": "nv", "probabilities": {"mel": 0.1, "nv": 0.9}, "error": None, "overlay": None}
        row |= {"explained": explained, "overlay": "overlay-0.png"} if overlay else {"explained": None}
        made.finish(claim, {"images": [row]}, {"overlay-0.png": b"picture"} if overlay else {})

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def attempt(client: FlaskClient, live: bool = True, count: int = 1, **form: str) -> tuple[int, str]:
    """Status and text of an answer to images that are sent as the page sends them."""
    csrf = csrf_of(client.get("/jobs"))
    images = [(io.BytesIO(jpeg()), f"{EVIL}.jpg") for _ in range(count)]
    headers = {"X-Live": "1"} if live else {}
    path = "/models/lesions/versions/1/try"
    answer = client.post(path, data={"csrf": csrf, "images": images, **form}, headers=headers)
    return answer.status_code, answer.text


@pytest.mark.parametrize("live", [True, False])
def test_an_image_is_answered_with_bars_its_overlay_and_the_note(made: Service, ada: FlaskClient, live: bool) -> None:
    register(made)
    worker = answering(made, overlay=True)
    status, text = attempt(ada, live, overlays="on", explained="mel")
    worker.join()
    assert status == 200
    assert ("<main" in text) == (not live)
    assert 'style="width: 90.00%"' in text
    assert 'style="width: 10.00%"' in text
    assert 'src="data:image/png;base64,cGljdHVyZQ=="' in text
    assert "the colours are of mel" in text
    assert "no diagnosis" in text
    assert EVIL not in text


def test_when_no_worker_answers_the_page_says_so(
    made: Service, ada: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(made)
    monkeypatch.setattr("services.dashboard.trying.SECONDS", 0)
    for live in (True, False):
        status, text = attempt(ada, live)
        assert status == 504
        assert "No worker was free within 0 s; try again" in text


def test_what_cannot_be_tried_is_told_with_its_status(made: Service, ada: FlaskClient) -> None:
    register(made)
    assert attempt(ada, count=0)[0] == 422
    status, text = attempt(ada, count=17)
    assert (status, "16 at most" in text) == (422, True)
    assert attempt(ada, overlays="on", explained="scc")[0] == 422
    held = [trials._places.acquire(blocking=False) for _ in range(trials.AT_ONCE)]
    try:
        assert all(held)
        assert attempt(ada)[0] == 429
    finally:
        for _ in held:
            trials._places.release()
    models.remove(made.context, ADA, "lesions")
    assert attempt(ada)[0] == 409
    with made.context.database.read() as session:
        assert session.scalars(select(Job.id).where(Job.kind == "trial")).all() == []


def test_images_that_are_larger_than_other_forms_arrive_and_only_for_who_has_signed_in(
    made: Service, ada: FlaskClient
) -> None:
    register(made)
    large = b"\0" * (made.context.settings.body_bytes + 1)
    path, csrf = "/models/lesions/versions/1/try", csrf_of(ada.get("/jobs")).encode()
    part = b'--|\r\nContent-Disposition: form-data; name="'
    body = part + b'csrf"\r\n\r\n' + csrf + b"\r\n" + part + b'images"; filename="a.png"\r\n\r\n' + large + b"\r\n--|--"

    def send_large(client: FlaskClient, where: str) -> int:
        return client.post(where, data=body, content_type="multipart/form-data; boundary=|").status_code

    assert send_large(ada, path) == 200  # it is no image, which the answer says
    assert send_large(ada, "/models/lesions/aliases") == 413
    assert send_large(made.app.test_client(), path) == 302  # to sign in, unread
