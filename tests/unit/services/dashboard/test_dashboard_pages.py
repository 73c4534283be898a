"""What the pages show, of nothing and of everything, and that text stays text."""

import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from services import jobs
from services.claims import MAX_ATTEMPTS, Lease
from services.order import Offer
from tests.unit.services.dashboard.browsing import words_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import (
    EVIL,
    Service,
    add_datasets,
    training_summary,
)

JOBS = ["succeeded", "predict", "cross_validate", "fold", "failed", "cancelled", "running", "queued"]


@pytest.fixture
def client(sign_in: SignIn) -> FlaskClient:
    return sign_in()


@pytest.mark.parametrize("path", ["/jobs", "/datasets", "/workers"])
def test_pages_of_an_empty_service_say_how_to_begin(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "<pre><code>bgpanet " in answer.text


def test_the_empty_list_of_jobs_tells_both_ways_to_submit(client: FlaskClient) -> None:
    words = words_of(client.get("/jobs"))
    assert "bgpanet submit train --dataset" in words
    assert "curl http://localhost/api/v1/jobs" in words


def test_every_page_of_a_full_service_renders(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    for path in ("/jobs", "/datasets", "/workers", *(f"/jobs/{ids[name]}" for name in JOBS)):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert answer.text.rstrip().endswith("</html>"), path


def test_live_answers_hold_every_live_region_of_their_page(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    for path in ("/jobs", "/workers", f"/jobs/{ids['running']}", f"/jobs/{ids['cross_validate']}"):
        whole, live = (client.get(path, headers=headers).text for headers in ({}, {"X-Live": "1"}))
        regions = re.findall(r'<(?:section|div) id="(\w+)"[^>]* data-live', whole)
        assert regions
        assert re.findall(r'<(?:section|div) id="(\w+)"[^>]* data-live', live) == regions
        assert "<html" not in live


def test_only_what_can_still_change_is_asked_for_again(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    for name in JOBS:
        assert ("data-active" in client.get(f"/jobs/{ids[name]}").text) == (name in ("running", "queued")), name
    assert "data-active" in client.get("/jobs").text
    for name in ("running", "queued"):
        jobs.cancel(made.context.database, ids[name])
    for name in ("running",):
        jobs.confirm_cancel(made.context.database, Lease(ids[name], 1))
    assert "data-active" not in client.get("/jobs").text


def test_names_errors_logs_and_findings_are_text_and_never_markup(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    escaped = EVIL.replace("<", "&lt;").replace(">", "&gt;")
    pages = ["/jobs", "/datasets", f"/jobs/{ids['queued']}", f"/jobs/{ids['failed']}", f"/jobs/{ids['running']}/logs"]
    for path in pages:
        text = client.get(path).text
        assert EVIL not in text, path
        assert escaped in text, path


def test_a_search_is_text_in_its_own_field(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    text = client.get("/jobs", query_string={"q": f'"{EVIL}', "state": EVIL, "kind": EVIL}).text
    assert EVIL not in text
    assert 'value="&#34;&lt;script&gt;' in text


@pytest.mark.parametrize("path", ["/jobs?q=%00", "/jobs/%00", "/jobs?cursor=a%00"])
def test_nul_is_refused(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 400


def _names(client: FlaskClient, address: str) -> list[str]:
    return re.findall(r'data-job="([^"]+)"', client.get(address).text)


def test_filters_choose_and_stay_in_the_addresses(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    assert _names(client, "/jobs?state=running") == ["BGPANet micro, long run"]
    assert _names(client, "/jobs?kind=cross_validate") == ["5-fold cross-validation"]
    assert _names(client, "/jobs?q=FIRST&kind=train&state=succeeded") == ["BGPANet micro, first look"]
    text = client.get("/jobs?q=micro&kind=train").text
    assert "/jobs?state=failed&amp;kind=train&amp;q=micro" in text
    assert '<option value="train" selected>' in text
    assert "No job fits" in client.get("/jobs?state=paused").text


def test_folds_stand_on_their_parents_page_only(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    assert not [name for name in _names(client, "/jobs") if "fold 0" in name]
    parent = client.get(f"/jobs/{ids['cross_validate']}").text
    assert f'href="/jobs/{ids["fold"]}"' in parent
    assert f'href="/jobs/{ids["cross_validate"]}"' in client.get(f"/jobs/{ids['fold']}").text


def test_older_jobs_are_a_link_away_and_each_is_shown_once(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    for number in range(53):
        made.submit(name=f"job {number}")
    first = client.get("/jobs?q=job").text
    older = re.search(r'<a rel="next" href="([^"]+)"', first)
    assert older is not None
    shown = re.findall(r'data-job="([^"]+)"', first) + _names(client, older.group(1).replace("&amp;", "&"))
    assert shown == [f"job {number}" for number in range(52, -1, -1)]


def test_the_list_counts_jobs_by_state(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    words = words_of(client.get("/jobs"))
    assert "all 7 queued 1 running 1 succeeded 3 failed 1 cancelled 1" in words


def test_a_running_job_shows_percentage_epoch_and_time_left(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    for path in ("/jobs", f"/jobs/{ids['running']}"):
        assert "40 % · epoch 13 of 30 · 2 min 15 s left" in words_of(client.get(path)), path


def test_a_training_shows_its_figures_beside_the_constant_predictor(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    summary = training_summary()
    words = words_of(client.get(f"/jobs/{ids['succeeded']}"))
    low, high = summary["intervals"]["balanced_accuracy"]
    value = summary["figures"]["balanced_accuracy"]
    assert f"Balanced accuracy {value:.3f} {low:.3f}\N{EN DASH}{high:.3f} always nv : 0.143" in words
    assert f"{value:.3f} ({low:.3f}\N{EN DASH}{high:.3f})" in words_of(client.get("/jobs"))
    assert "these figures say nothing about lesions" in words
    assert "nothing leaks" in words


def test_the_confusion_matrix_tells_counts_and_shares_of_the_row_in_words(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    text = client.get(f"/jobs/{ids['succeeded']}").text
    row = training_summary()["figures"]["confusion_matrix"][4]
    for predicted, count in zip(["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"], row, strict=True):
        assert f"{count} of {sum(row)} mel taken for {predicted}" in text
        share = f"<small>{100 * count / sum(row):.1f} %</small>" if count else ""  # nothing has no share worth a look
        assert f"<b>{count}</b>{share}<" in text


def test_a_leaking_split_is_said_aloud(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    job_id = made.submit()
    summary = {**training_summary(), "leakage": {"groups": 12, "images": 30, "share": 0.387}}
    made.finish(made.claim(), summary)
    words = words_of(client.get(f"/jobs/{job_id}"))
    assert "38.7 % of the test images leak : 30 of them share one of 12 lesions" in words
    assert "nothing leaks" not in words


def test_a_cross_validation_shows_folds_their_mean_and_all_pooled(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    answer = client.get(f"/jobs/{ids['cross_validate']}")
    words = words_of(answer)
    assert len(re.findall(r'<tr id="job-', answer.text)) == 5
    spread = r"mean ± standard deviation 0\.\d{3} ± 0\.\d{3} 0\.\d{3} ± 0\.\d{3} 0\.\d{3} ± 0\.\d{3}"
    assert re.search(spread, words)
    assert re.search(r"pooled, 95 % interval 0\.\d{3} \(0\.\d{3}\N{EN DASH}0\.\d{3}\)", words)


def test_a_failure_is_explained_in_plain_words(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    words = words_of(client.get(f"/jobs/{ids['failed']}"))
    assert "The device ran out of memory. Use smaller batches" in words
    assert f"tried to allocate 2.31 GiB {EVIL}" in words
    assert "Out of memory, in attempt 1." in words


def test_what_failed_tells_first_why_and_what_to_do_and_then_its_log(
    ids: dict[str, str], made: Service, sign_in: SignIn, client: FlaskClient
) -> None:
    path = f"/jobs/{ids['failed']}"
    text = client.get(path).text
    places = [
        text.index(f'id="{name}"') for name in ("failure", "retry", "correct", "log-title", "curves-title", "spec")
    ]
    assert places == sorted(places)
    assert text.count("/retry") == 1  # one button, at one place
    assert 'id="retry"' not in sign_in("vera", "viewer").get(path).text
    succeeded = client.get(f"/jobs/{ids['succeeded']}").text
    assert succeeded.index('id="curves-title"') < succeeded.index('id="log-title"')


def test_a_job_that_never_began_shows_no_empty_boxes(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    text = client.get(f"/jobs/{ids['queued']}").text
    assert re.search(r'id="curves-card"[^>]* hidden>', text)
    assert "files-title" not in text
    running = client.get(f"/jobs/{ids['running']}").text
    assert not re.search(r'id="curves-card"[^>]* hidden>', running)


def test_a_pages_parts_are_linked_at_its_head(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    for name in ("succeeded", "cross_validate", "running"):
        text = client.get(f"/jobs/{ids[name]}").text
        anchors = re.findall(r'href="#([\w-]+)"', text[text.index('id="jump"') :].partition("</nav>")[0])
        assert len(anchors) > 3, name
        assert [anchor for anchor in anchors if f'id="{anchor}"' not in text] == [], name


def test_every_reason_of_the_state_machine_has_plain_words(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    told = set()
    for reason in jobs.REASONS:
        job_id = made.submit()
        for _ in range(MAX_ATTEMPTS):
            with made.context.database.write() as session:
                session.connection().exec_driver_sql("UPDATE jobs SET not_before = 0")
            claim = jobs.claim(made.context.database, "w", Offer(["any"]), 30)
            if claim is not None:
                jobs.fail(made.context.database, claim.lease, reason, "why")
        found = re.search(r'id="failure">\s*<p><b>(.*?)</b>', client.get(f"/jobs/{job_id}").text)
        assert found is not None, reason
        told.add(found.group(1))
    assert len(told) == len(jobs.REASONS)


def test_a_batch_inference_shows_what_it_predicted(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    words = words_of(client.get(f"/jobs/{ids['predict']}"))
    assert "of 60 images; 1 unreadable" in words
    assert "nv 36" in words


def test_an_explanation_shows_how_blocks_fuse_and_whose_model_it_is(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    trained = made.submit()
    made.finish(made.claim(), training_summary())
    job_id = made.submit("explain", spec={"model": trained})
    fusion = [{"stage": 1, "block": 1, "scale": 1.0, "fusion": {"coarse": 0.25, "fine": 0.75}}]
    randomised = {"all weights": {"mean": 0.125, "images": 7, "flat": 1}, "classifier": {"mean": None, "images": 0}}
    summary = {"images": 8, "methods": ["grad_cam"], "explained": "mel", "fusion": fusion, "randomised": randomised}
    made.finish(made.claim(), {**summary, "synthetic": True}, {"explained-a.png": b"png"})
    answer = client.get(f"/jobs/{job_id}")
    words = words_of(answer)
    assert "of 8 images, Grad-CAM of mel" in words
    assert "1 1 0.250 0.750" in words
    assert "With random all weights in the model" in words
    assert f'href="/jobs/{trained}"' in answer.text
    assert "8 images" in words_of(client.get("/jobs"))


def test_provenance_history_and_spec_are_told(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    answer = client.get(f"/jobs/{ids['succeeded']}")
    words = words_of(answer)
    assert "by lesion, fold 0 of 5" in words
    assert "epoch 22, step 440, by balanced accuracy 0.610" in words
    assert "claimed by gpu-0 attempt 1" in words
    assert '"learning_rate": 0.001' in words


def test_an_artifact_downloads_whole(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    path = f"/jobs/{ids['succeeded']}/artifacts/report.json"
    assert f'href="{path}"' in client.get(f"/jobs/{ids['succeeded']}").text
    with client.get(path) as answer:
        assert answer.data == b'{"a": 1}'
        assert "attachment" in answer.headers["Content-Disposition"]


def test_a_report_is_shown_in_the_browser_without_any_rights(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    """It holds names from users: were one of them a script, it could act as whoever looks."""
    path = f"/jobs/{ids['succeeded']}/artifacts/report.html"
    page = client.get(f"/jobs/{ids['succeeded']}").text
    assert re.search(rf'<a [^>]*id="report" href="{path}">Report</a>', page)
    assert f'href="{path}" download' not in page
    assert 'id="report"' not in client.get(f"/jobs/{ids['running']}").text
    with client.get(path) as answer:
        assert answer.data == b"<h1>Report</h1>"
        assert answer.mimetype == "text/html"
        assert "attachment" not in answer.headers["Content-Disposition"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = answer.headers.getlist("Content-Security-Policy")
    assert policy == ["sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


@pytest.mark.parametrize("summary", [{}, {"figures": {}}, {"figures": {"balanced_accuracy": 0.5}}, "thin"])
def test_a_summary_with_missing_parts_breaks_no_page(made: Service, client: FlaskClient, summary: Any) -> None:
    add_datasets(made)
    if summary == "thin":
        full = training_summary()
        row = {name: None for name in full["figures"]["per_class"][0]} | {"class": "nv"}
        bare = {**full["figures"], "auroc_macro": None, "constant_predictor": {}, "per_class": [row]}
        summary = {
            "figures": bare,
            "intervals": {},
            "leakage": {"groups": 3},
            "kept": {"epoch": 1},
            "split": {"fold": 1},
        }
    plain, parent = made.submit(), made.submit("cross_validate", spec={"split": {"folds": 2}})
    for _ in range(3):
        made.finish(made.claim(), summary)
    made.finish(made.claim(), {"pooled": summary.get("figures"), "mean": {"accuracy": {"mean": None, "sd": None}}})
    new = made.submit("predict", spec={"model": plain}, dataset_id="new-id")
    made.finish(made.claim(), {"images": 3})
    explained = made.submit("explain", spec={"model": plain}, dataset_id="new-id")
    made.finish(made.claim(), {"images": 3, "methods": ["grad_cam"]})
    for path in ("/jobs", f"/jobs/{plain}", f"/jobs/{parent}", f"/jobs/{new}", f"/jobs/{explained}"):
        assert client.get(path).status_code == 200, path


def test_new_log_lines_follow_those_that_are_known(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    path = f"/jobs/{ids['running']}/logs"
    numbers = re.findall(r'data-id="(\d+)"', client.get(path).text)
    assert len(numbers) == 14
    assert re.findall(r'data-id="(\d+)"', client.get(f"{path}?after={numbers[9]}").text) == numbers[10:]
    for after in ("x", "-1", "9" * 30):
        assert client.get(f"{path}?after={after}").status_code == 200


def test_curves_are_json_a_browser_can_read(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    charts = json.loads(client.get(f"/jobs/{ids['succeeded']}/curves").text)
    assert [chart["id"] for chart in charts] == ["loss", "accuracy", "rate", "weights"]
    assert {chart["kept_step"] for chart in charts} == {440}
    folds = json.loads(client.get(f"/jobs/{ids['cross_validate']}/curves").text)
    assert [[line["name"] for line in chart["lines"]] for chart in folds] == [[f"fold {n}" for n in range(5)]] * 2
    assert json.loads(client.get(f"/jobs/{ids['queued']}/curves").text) == []


def test_what_does_not_exist_is_a_page(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    for path in ("/jobs/nope", "/jobs/nope/curves", f"/jobs/{ids['succeeded']}/artifacts/nope"):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype) == (404, "text/html"), path
        assert "<h1>Not found</h1>" in answer.text


def test_an_unexpected_error_is_a_page_without_its_cause(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr("services.views.list_workers", break_down)
    answer = client.get("/workers")
    assert (answer.status_code, answer.mimetype) == (500, "text/html")
    assert "secret detail" not in answer.text


def test_pages_carry_no_script_of_their_own_and_name_no_other_host(
    ids: dict[str, str], made: Service, client: FlaskClient
) -> None:
    for path in ("/login", "/jobs", "/datasets", "/workers", *(f"/jobs/{ids[name]}" for name in JOBS)):
        text = client.get(path).text
        assert not re.findall(r"<script(?![^>]*\bsrc=)", text), path
        assert not re.findall(r"\son\w+=", text), path
        assert not re.findall(r"""(?:src|href|action)=["'](?:https?:)?//""", text), path


def test_pages_are_kept_nowhere_and_plotly_for_long(ids: dict[str, str], made: Service, client: FlaskClient) -> None:
    page = client.get(f"/jobs/{ids['succeeded']}")
    assert page.headers["Cache-Control"] == "no-store"
    found = re.search(r'src="(/static/vendor/plotly-[^"]+)"', page.text)
    assert found is not None
    anybody = made.app.test_client()
    plain = anybody.get(found.group(1))
    zipped = anybody.get(found.group(1), headers={"Accept-Encoding": "gzip"})
    assert "immutable" in plain.headers["Cache-Control"]
    assert plain.data.startswith(b"/**\n* plotly.js")
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert len(zipped.data) < len(plain.data) / 2
    assert anybody.get("/static/vendor/plotly-0.0.min.js").status_code == 404


def test_an_address_that_nothing_has_is_a_page_for_browsers_and_a_problem_for_programs(made: Service) -> None:
    client = made.app.test_client()
    page = client.get("/no-such-page", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert "<h1>Not found</h1>" in page.text
    assert "Sign in" in page.text
    assert "No page has this address." in page.text
    for path, accept in (("/no-such-page", "*/*"), ("/api/v1/nothing", "text/html")):
        answer = client.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.mimetype) in (
            (404, "application/problem+json"),
            (401, "application/problem+json"),
        )


def test_whoever_has_signed_in_finds_the_way_back_from_an_address_that_nothing_has(client: FlaskClient) -> None:
    page = client.get("/no-such-page", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.status_code == 404
    for way in ('aria-label="Main"', 'href="/overview"', 'href="/jobs"', "Sign out"):
        assert way in page.text
    wrong = client.post("/overview", headers={"Accept": "text/html"})
    assert (wrong.status_code, "<h1>Not to be done here</h1>" in wrong.text) == (405, True)


def test_an_empty_installation_tells_how_to_begin(made: Service, client: FlaskClient, sign_in: SignIn) -> None:
    page = client.get("/overview")
    assert "No jobs yet" in words_of(page)
    assert "A worker is missing: bgpanet worker starts one" in words_of(page)
    assert 'href="/datasets/new"' in page.text
    assert 'href="/datasets/new"' not in sign_in("vera", "viewer").get("/overview").text
    add_datasets(made)
    made.submit()
    assert "No jobs yet" not in words_of(client.get("/overview"))
