"""Pause, resume, retry, clone, priorities, dependencies and limits over HTTP."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from services import fleet, jobs
from services.claims import Claim, StoredFile
from services.fleet import Member, Weights
from services.order import Offer
from services.tables import Dataset
from tests.unit.services.api.test_api import Api, finished_job
from tests.unit.services.api.test_api import api as api  # a fixture


def claim(api: Api) -> Claim:
    claimed = jobs.claim(api.context.database, "w", Offer(["any"]), 30)
    assert claimed is not None
    return claimed


def test_a_waiting_job_is_paused_and_resumed(api: Api) -> None:
    job_id = api.submit("ada").json["id"]
    paused = api.call("POST", f"jobs/{job_id}/pause", "ada")
    assert (paused.status_code, paused.json["state"]) == (200, "paused")
    assert paused.json["queue"]["waits_for"][0] == "it is paused"
    assert jobs.claim(api.context.database, "w", Offer(["any"]), 30) is None
    resumed = api.call("POST", f"jobs/{job_id}/resume", "ada")
    assert (resumed.json["state"], resumed.json["queue"]["position"]) == ("queued", 1)
    assert claim(api).lease.job_id == job_id


def test_what_has_ended_can_be_neither_paused_nor_moved(api: Api) -> None:
    job_id = finished_job(api, "ada")
    for method, path, body in (
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/retry", None),
        ("PATCH", "", {"priority": 3}),
    ):
        answer = api.call(method, f"jobs/{job_id}{path}", "ada", json=body)
        assert answer.status_code == 409, path
        assert "succeeded" in answer.json["detail"]


def test_a_failed_job_is_tried_again_as_a_new_one_from_its_checkpoint(api: Api) -> None:
    job_id = api.submit("ada").json["id"]
    lease = claim(api).lease
    jobs.record_checkpoint(api.context.database, lease, 7, 1, {"m": StoredFile("k", "0" * 64, 1)})
    jobs.fail(api.context.database, lease, "stalled", "silent")
    again = api.call("POST", f"jobs/{job_id}/retry", "ada")
    assert again.status_code == 201
    assert again.headers["Location"] == f"/api/v1/jobs/{again.json['id']}"
    assert again.json["retry_of"] == job_id
    assert api.call("GET", f"jobs/{job_id}", "ada").json["superseded_by"] == again.json["id"]
    twice = api.call("POST", f"jobs/{job_id}/retry", "ada")
    assert (twice.status_code, twice.json["id"]) == (200, again.json["id"])
    claimed = claim(api)
    assert claimed.lease.job_id == again.json["id"]
    assert claimed.checkpoint is not None


def test_a_clone_is_the_same_request_but_for_what_was_changed(api: Api) -> None:
    first = api.submit("ada", priority=4, time_limit=600).json
    changes = {"spec": {"training": {"seed": 5}}, "name": "other seed"}
    clone = api.call("POST", f"jobs/{first['id']}/clone", "ada", json=changes)
    assert clone.status_code == 201
    assert clone.json["cloned_from"] == first["id"]
    assert (clone.json["priority"], clone.json["time_limit"], clone.json["name"]) == (4, 600, "other seed")
    wanted = {**first["spec"], "training": {**first["spec"]["training"], "seed": 5}}
    assert clone.json["spec"] == wanted


def test_a_field_of_the_model_or_loss_changes_in_a_clone_and_the_network_stays(api: Api) -> None:
    spec = {"model": "swin_micro", "loss": {"name": "ldam_drw", "max_margin": 0.3}}
    first = api.submit("ada", spec=spec).json
    changes = {"spec": {"model": {"weights": None}, "loss": {"max_margin": 0.4}}}
    spec = api.call("POST", f"jobs/{first['id']}/clone", "ada", json=changes).json["spec"]
    assert spec["model"] == first["spec"]["model"]
    assert spec["loss"] == {**first["spec"]["loss"], "max_margin": 0.4}


def test_another_network_takes_no_options_of_the_one_before(api: Api) -> None:
    first = api.submit("ada", spec={"model": {"name": "bgpanet_micro", "placement": "stage"}}).json
    for model in ("swin_micro", {"name": "swin_micro"}):
        clone = api.call("POST", f"jobs/{first['id']}/clone", "ada", json={"spec": {"model": model}})
        assert clone.status_code == 201, clone.json
        assert (clone.json["spec"]["model"]["name"], clone.json["spec"]["model"]["placement"]) == ("swin_micro", None)


def test_a_clone_is_named_for_what_it_does_unless_somebody_named_it(api: Api) -> None:
    named, unnamed = (api.submit("ada", **name).json["id"] for name in ({"name": "mine"}, {}))
    changes = {"spec": {"model": "swin_micro"}}
    names = [api.call("POST", f"jobs/{job_id}/clone", "ada", json=changes).json["name"] for job_id in (named, unnamed)]
    assert names == ["mine", "train swin_micro on lesions"]


def test_a_clone_is_checked_like_any_request(api: Api) -> None:
    first = api.submit("ada").json
    answer = api.call("POST", f"jobs/{first['id']}/clone", "ada", json={"spec": {"training": {"epochs": 0}}})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"] == "spec.training.epochs"
    answer = api.call("POST", f"jobs/{first['id']}/clone", "ada", json={"name": None})
    assert answer.status_code == 422


def test_priorities_change_the_order(api: Api) -> None:
    api.submit("ada")
    second = api.submit("ada").json["id"]
    assert api.call("GET", f"jobs/{second}", "ada").json["queue"]["position"] == 2
    moved = api.call("PATCH", f"jobs/{second}", "ada", json={"priority": 5})
    assert (moved.json["priority"], moved.json["queue"]["position"]) == (5, 1)
    assert api.call("PATCH", f"jobs/{second}", "ada", json={"priority": 1000}).status_code == 422
    assert claim(api).lease.job_id == second


@pytest.mark.parametrize(
    ("classes", "shards"),
    [([], 0), ([("any", "cpu")], 3), ([("any", "cpu"), ("any", "gpu")], 0)],
    ids=["no worker is there", "CPUs alone", "one has a GPU"],
)
def test_shards_are_smaller_where_no_worker_has_a_gpu(api: Api, classes: list[tuple[str, ...]], shards: int) -> None:
    model = finished_job(api, "ada")
    with api.context.database.write() as session:
        session.execute(update(Dataset).values(images=5_000))
    for number, taken in enumerate(classes):
        member = Member(f"w/{number}", "node", 1, "0.1.0", "a device", taken)
        fleet.beat(api.context.database, member, None, {}, Weights())
    made = api.submit("ada", kind="predict", spec={"model": model})
    children = api.call("GET", f"jobs/{made.json['id']}/children", "ada").json["items"]
    assert len(children) == shards


def test_a_job_on_several_gpus_goes_to_slots_that_have_them(api: Api) -> None:
    several = {"kind": "cross_validate", "spec": {"split": {"folds": 2, "validation_folds": 2}}}
    several["spec"] |= {"resources": {"gpus": 4}}  # type: ignore[operator]
    made = api.submit("ada", **several)
    assert made.status_code == 201  # no worker is there yet; it may wait
    for classes in (("any", "gpu"), ("any", "gpu", "gpu-2", "gpu-3")):
        assert jobs.claim(api.context.database, "w", Offer(classes), 30) is None
    slot = Offer(("any", "gpu", "gpu-2", "gpu-3", "gpu-4"))
    for _ in range(2):
        fold = jobs.claim(api.context.database, "w", slot, 30)
        assert fold is not None
        assert fold.kind == "train"
        jobs.finish(api.context.database, fold.lease, {}, [])
    pooling = jobs.claim(api.context.database, "w", Offer(["any", "cpu"]), 30)  # by whoever is free
    assert pooling is not None
    assert pooling.lease.job_id == made.json["id"]

    fleet.beat(api.context.database, Member("w/0", "node", 1, "0.1.0", "a device", ("any", "gpu")), None, {}, Weights())
    refused = api.submit("ada", **several)
    assert refused.status_code == 422
    assert refused.json["errors"][0]["field"] == "spec.resources.gpus"
    assert "--gpus-per-slot 4" in refused.json["errors"][0]["detail"]


def test_only_trainings_use_several_gpus(api: Api) -> None:
    model = finished_job(api, "ada")
    refused = api.submit("ada", kind="predict", spec={"model": model, "resources": {"gpus": 2}})
    assert refused.status_code == 422
    assert "one device" in refused.json["errors"][0]["detail"]


def test_a_prediction_follows_the_training_whose_model_it_applies(api: Api) -> None:
    training = api.submit("ada").json["id"]
    body = {"kind": "predict", "dataset": "lesions", "spec": {"model": training}}
    refused = api.call("POST", "jobs", "ada", json=body)
    assert refused.status_code == 422
    assert "`after`" in refused.json["errors"][0]["detail"]
    made = api.call("POST", "jobs", "ada", json={**body, "after": [training]})
    assert made.status_code == 201
    assert made.json["after"] == [training]
    found = api.call("GET", f"jobs/{made.json['id']}", "ada").json["queue"]
    assert found["position"] is None
    assert found["waits_for"][0].startswith(f"job {training}")
    jobs.cancel(api.context.database, training)
    ended = api.call("GET", f"jobs/{made.json['id']}", "ada").json
    assert (ended["state"], ended["error"]) == ("cancelled", f"job {training}, which it was to follow, is cancelled")


def test_of_an_evaluation_that_follows_its_training_is_checked_what_can_be(api: Api) -> None:
    training = api.submit("ada").json["id"]
    body = {"kind": "evaluate", "dataset": "lesions", "after": [training]}
    answer = api.call("POST", "jobs", "ada", json={**body, "spec": {"model": training, "part": "locked"}})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == ["spec.part"]
    assert api.call("POST", "jobs", "ada", json={**body, "spec": {"model": training}}).status_code == 201


def test_what_cannot_be_followed_is_told_at_its_place(api: Api) -> None:
    cancelled = api.submit("ada").json["id"]
    jobs.cancel(api.context.database, cancelled)
    others = api.submit("bob").json["id"]
    answer = api.submit("ada", after=[cancelled, others, "nope"])
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == ["after.0", "after.1", "after.2"]


def test_more_than_may_wait_is_refused_and_said_when_to_come_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(api.context.__dict__, "settings", replace(api.context.settings, queued_per_user=2))
    for _ in range(2):
        assert api.submit("ada").status_code == 201
    answer = api.submit("ada")
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert "2 jobs of ada wait" in answer.json["detail"]
    assert api.submit("bob").status_code == 201
