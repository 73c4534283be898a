"""One data set with its checks and pictures, and registering another one."""

import hashlib
import io
import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import insert, update

from bgpanet.data import synthetic
from bgpanet.data.pack import IMAGES, INDEX, pack
from bgpanet.data.readers import read
from services import jobs, views
from services.ids import new_id
from services.tables import Artifact, Dataset
from services.tokens import Principal
from tests.unit.services.dashboard.browsing import csrf_of, words_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import EVIL, Service, add_datasets

ADMIN = Principal("root", "admin")


@pytest.fixture
def client(sign_in: SignIn) -> FlaskClient:
    return sign_in()


def _packed(made: Service, folder: Path) -> list[str]:
    """Gives `lesions-id` files and a report of its checks. Returns its image ids."""
    synthetic.draw_unlabelled(folder / "drawn", count=6, seed=1)
    index = read("folder", folder / "drawn")
    pack(index, folder / "pack")
    files = {}
    for name in (IMAGES, INDEX):
        made.context.store.put_file(f"data/{name}", folder / "pack" / name, _digest(folder / "pack" / name))
        files[name] = {"key": f"data/{name}", "sha256": "", "size": 1}
    ids = [record.image_id for record in index.records]
    pair = {"first": ids[0], "second": ids[1], "agreeing": 0}
    found = {"count": 1, "identical": 1, "pairs": [pair]}
    checks = {
        "duplicates": {"across classes": found, "across groups": _NONE, "inside a group": _NONE},
        "shared": {"ham10000 1": {**found, "count": 3}, "isic2018 2": _NONE},
        "groups": {"unit": "lesion", "count": 13, "sizes": {"1": 10, "2": 2, "5": 1}},
    }
    (folder / "checks.json").write_text(json.dumps(checks))
    made.context.store.put_file("data/checks", folder / "checks.json", _digest(folder / "checks.json"))
    job_id = made.submit()
    with made.context.database.write() as session:
        session.execute(update(Dataset).where(Dataset.id == "lesions-id").values(files=files, job_id=job_id))
        values = {"key": "data/checks", "sha256": "", "size": 100, "media_type": "application/json", "created_at": 1}
        session.execute(insert(Artifact).values(job_id=job_id, name="checks.json", attempt=1, **values))
    return ids


_NONE = {"count": 0, "identical": 0, "pairs": []}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_data_set_shows_samples_and_duplicates_as_pictures(
    made: Service, client: FlaskClient, tmp_path: Path
) -> None:
    add_datasets(made)
    ids = _packed(made, tmp_path / "data")
    page = client.get("/datasets/lesions-id")
    words = words_of(page)
    assert "across classes 1 pair, 1 of the same bytes" in words
    assert "inside a group" not in words
    answer = client.get(f"/datasets/lesions-id/images/{ids[0]}")
    assert f'src="/datasets/lesions-id/images/{ids[0]}"' in page.text
    with Image.open(io.BytesIO(answer.data)) as image:
        assert (image.format, max(image.size) <= 200) == ("JPEG", True)
    assert client.get("/datasets/lesions-id/images/nothing").status_code == 404


def test_a_data_set_tells_what_may_leak_and_what_does_not(made: Service, client: FlaskClient, tmp_path: Path) -> None:
    add_datasets(made)
    _packed(made, tmp_path / "data")
    words = words_of(client.get("/datasets/lesions-id"))
    assert "well 0 lesions on both sides of a split" in words
    assert "3 of them have several images, 9 in all" in words
    assert "well 0 pairs of images of two lesions show the same" in words
    assert "look 1 pair of images of two classes show the same One of the two labels is wrong." in words
    assert "look 1 of 2 other data sets has images of this one" in words
    assert "ham10000 1 (3 pairs)." in words
    assert "finished run" not in words


@pytest.mark.parametrize(("leaking", "told"), [(0, "well Counted in 1 finished run: 0"), (4, "look 1 of 1 finished")])
def test_a_data_set_tells_what_runs_on_it_have_counted_to_whoever_sees_them(
    made: Service, sign_in: SignIn, tmp_path: Path, leaking: int, told: str
) -> None:
    add_datasets(made)
    _packed(made, tmp_path / "data")
    made.finish(made.claim(), {"leakage": {"groups": leaking, "images": leaking, "share": 0.1}})
    assert told in words_of(sign_in().get("/datasets/lesions-id"))
    assert "finished run" not in words_of(sign_in("eve", "researcher").get("/datasets/lesions-id"))


def test_a_data_set_without_pictures_shows_its_classes_and_findings(made: Service, client: FlaskClient) -> None:
    add_datasets(made)
    words = words_of(client.get("/datasets/lesions-id"))
    assert "nv 670" in words
    assert f"is byte-identical to ISIC_0024306.jpg {EVIL}" in words
    assert "Samples" not in words
    assert client.get("/datasets/nothing").status_code == 404


def test_an_admin_registers_a_folder_and_everybody_is_told_what_is_wrong(made: Service, sign_in: SignIn) -> None:
    admin, ada = sign_in(), sign_in("ada", "researcher")
    form = {
        "csrf": csrf_of(admin.get("/jobs")),
        "name": "new",
        "format": "folder",
        "place": "/data/new",
        "locked": "20",
    }
    answer = admin.post("/datasets/new", data=form)
    assert answer.status_code == 303
    data = views.get_dataset(made.context.database, ADMIN, answer.headers["Location"].rpartition("/")[2])
    assert (data["name"], data["state"]) == ("new", "registering")
    spec = views.get_job(made.context.database, ADMIN, data["job"])["spec"]
    assert (spec["source"]["folder"], spec["locked"]["share"]) == ("/data/new", 0.2)
    assert "waits for a worker that is free" in words_of(admin.get(f"/datasets/{data['id']}"))
    form["csrf"] = csrf_of(ada.get("/jobs"))
    assert ada.post("/datasets/new", data=form).status_code == 403
    wrong = ada.post("/datasets/new", data={**form, "name": EVIL, "place": new_id(), "format": "?"})
    assert wrong.status_code == 422
    for field in ("name", "format", "source.upload"):
        assert f"<code>{field}</code>" in wrong.text
    assert EVIL not in wrong.text


def test_only_who_may_removes_a_data_set(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    admin, ada = sign_in(), sign_in("ada", "researcher")
    assert "Remove lesions" not in words_of(ada.get("/datasets/lesions-id"))
    assert ada.post("/datasets/lesions-id/remove", data={"csrf": csrf_of(ada.get("/jobs"))}).status_code == 403
    job_id = made.submit()
    form = {"csrf": csrf_of(admin.get("/jobs"))}
    assert admin.post("/datasets/lesions-id/remove", data=form).status_code == 409
    jobs.cancel(made.context.database, job_id)
    assert admin.post("/datasets/lesions-id/remove", data=form).status_code == 303
    assert views.get_dataset(made.context.database, ADMIN, "lesions-id")["state"] == "removed"
