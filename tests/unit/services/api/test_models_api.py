"""`/api/v1/models` through Flask's test client."""

import hashlib
import io
import json
import zipfile

from bgpanet.catalogue import MODELS
from tests.support.trained import trained
from tests.unit.services.api.test_api import Api
from tests.unit.services.api.test_api import api as api  # a fixture


def register(api: Api, weights: str = "weights", user: str = "ada", **more: object) -> dict[str, object]:
    job_id = trained(api.context, user, weights)
    answer = api.call("POST", "models", user, json={"name": "lesions", "job": job_id, **more})
    assert answer.status_code == 201
    return dict(answer.json)


def test_networks_and_registered_models_stand_in_one_list_and_apart(api: Api) -> None:
    register(api)
    both = api.call("GET", "models", "ada").json["items"]
    assert [item["id"] for item in both[: len(MODELS)]] == list(MODELS)
    assert [item["name"] for item in both[len(MODELS) :]] == ["lesions"]
    networks = api.call("GET", "models?kind=network", "ada").json["items"]
    assert {item["kind"] for item in networks} == {"network"}
    registered = api.call("GET", "models?kind=registered&q=LES", "ada").json["items"]
    assert [item["name"] for item in registered] == ["lesions"]
    assert api.call("GET", "models?kind=registered", "bob").json["items"] == []
    assert api.call("GET", "models/bgpanet", "bob").json["title"] == "BGPANet on Swin-B"


def test_a_model_is_registered_shown_and_found_by_number_and_alias(api: Api) -> None:
    made = register(api, alias="champion", note="the first")
    assert (made["version"], made["aliases"]) == (1, ["champion"])
    shown = api.call("GET", "models/lesions", "ada").json
    assert (shown["versions"], shown["newest"], shown["aliases"]) == (1, 1, {"champion": 1})
    for version in ("1", "champion", made["id"]):
        assert api.call("GET", f"models/lesions/versions/{version}", "ada").json["id"] == made["id"]
    again = api.call("POST", "models", "ada", json={"name": "lesions", "job": made["job"]})
    assert (again.status_code, again.json["id"]) == (200, made["id"])
    assert again.headers["Location"].endswith(f"/models/{made['model_id']}/versions/1")


def test_what_is_wrong_with_a_registration_is_told_by_field(api: Api) -> None:
    answer = api.call("POST", "models", "ada", json={"name": "bgpanet", "job": "x", "alias": "3"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == ["name", "alias", "job"]
    assert api.call("POST", "models", "eve", json={"name": "a", "job": "x"}).status_code == 403


def test_an_alias_is_moved_from_where_it_is_expected_and_dropped(api: Api) -> None:
    register(api, "a")
    register(api, "b")
    where = "models/lesions/aliases/champion"
    assert api.call("PUT", where, "ada", json={"version": 1, "expected": 0}).json["aliases"] == {"champion": 1}
    assert api.call("PUT", where, "ada", json={"version": 2, "expected": 0}).status_code == 409
    assert api.call("PUT", where, "ada", json={"version": 2}).json["aliases"] == {"champion": 2}
    assert api.call("PUT", where, "ada", json={"version": 3}).status_code == 404
    assert api.call("PUT", "models/lesions/aliases/3", "ada", json={"version": 1}).status_code == 422
    assert api.call("DELETE", where, "ada").status_code == 204
    assert api.call("DELETE", where, "ada").status_code == 404


def test_another_ones_model_is_not_there_on_any_route(api: Api) -> None:
    made = register(api, alias="champion")
    for name in ("lesions", made["model_id"]):
        for method, path, body in (
            ("GET", f"models/{name}", None),
            ("DELETE", f"models/{name}", None),
            ("GET", f"models/{name}/versions", None),
            ("GET", f"models/{name}/versions/1", None),
            ("GET", f"models/{name}/versions/{made['id']}", None),
            ("DELETE", f"models/{name}/versions/1", None),
            ("GET", f"models/{name}/versions/1/export", None),
            ("PUT", f"models/{name}/aliases/champion", {"version": 1}),
            ("DELETE", f"models/{name}/aliases/champion", None),
        ):
            arguments = {} if body is None else {"json": body}
            assert api.call(method, path, "bob", **arguments).status_code == 404, (method, path)
    assert api.call("POST", "models", "bob", json={"name": "mine", "job": made["job"]}).status_code == 422


def test_a_removed_version_is_still_told_of_and_stands_for_nothing(api: Api) -> None:
    register(api, "a", alias="champion")
    assert api.call("DELETE", "models/lesions/versions/champion", "ada").status_code == 204
    assert api.call("GET", "models/lesions/versions/1", "ada").json["state"] == "removed"
    assert api.call("GET", "models/lesions/versions/champion", "ada").status_code == 404
    assert api.call("GET", "models/lesions/versions/1/export", "ada").status_code == 409
    assert api.call("DELETE", "models/lesions", "ada").status_code == 404


def test_an_export_holds_weights_spec_card_and_digests_and_no_names_of_images(api: Api) -> None:
    register(api)
    answer = api.call("GET", "models/lesions/versions/1/export", "ada")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="lesions-1.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        names = {"model.safetensors", "model.json", "model_card.md", "about.json", "SHA256SUMS"}
        assert set(archive.namelist()) == names
        for line in archive.read("SHA256SUMS").decode().splitlines():
            digest, name = line.split("  ")
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest
        about = json.loads(archive.read("about.json"))
    assert about["metrics"]["figures"] == {"balanced_accuracy": 0.8}
    assert "no diagnosis" in about["intended_use"]
    assert api.call("GET", "models/lesions/versions/1/export", "ada").data == answer.data


def test_images_are_sent_as_a_form_and_what_is_wrong_with_it_is_told(api: Api) -> None:
    register(api)
    bad = {"images": [(io.BytesIO(b"hello"), "one.jpg"), (io.BytesIO(b""), "two.jpg")]}
    answer = api.call("POST", "models/lesions@1/predict?timeout=1", "ada", data=bad)
    assert answer.status_code == 200
    assert [image["name"] for image in answer.json["images"]] == ["one.jpg", "two.jpg"]
    assert all(image["error"] for image in answer.json["images"])
    for data in ({}, {"files": [(io.BytesIO(b"x"), "a")]}, {"images": [(io.BytesIO(b"x"), "a") for _ in range(17)]}):
        wrong = api.call("POST", "models/lesions/predict", "ada", data=data, content_type="multipart/form-data")
        assert wrong.status_code == 422
        assert wrong.json["errors"]
    none = {"images": [(io.BytesIO(b"x"), "a.jpg")]}
    assert api.call("POST", "models/lesions/predict", "bob", data=none).status_code == 404
    assert api.call("POST", "models/lesions/predict?timeout=61", "ada", data={}).status_code == 422


def test_onnx_and_imports_are_jobs(api: Api) -> None:
    register(api)
    made = api.call("POST", "models/lesions/versions/1/export", "ada", json={"format": "onnx"})
    assert (made.status_code, made.json["kind"], made.json["dataset"]) == (201, "export", None)
    assert [job["kind"] for job in api.call("GET", "jobs?kind=export", "ada").json["items"]] == ["export"]
    assert api.call("POST", f"jobs/{made.json['id']}/clone", "ada", json={}).status_code == 409
    assert api.call("DELETE", "models/lesions", "ada").status_code == 409  # it waits for it
    wrong = api.call("POST", "models", "ada", json={"name": "ours", "upload": "x"})
    assert [error["field"] for error in wrong.json["errors"]] == ["upload"]
