"""A trained model's life with a real worker: registered, applied by its alias, written as ONNX, exported, imported, and
tried on images, through the product's own API, client and database."""

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession
from PIL import Image
from sqlalchemy import select
from werkzeug.serving import make_server

from bgpanet.data import synthetic
from bgpanet.data.pixels import decode
from services import submission, tokens, views
from services.client import Client
from services.client_errors import ApiError
from services.settings import Settings
from services.submission import Request
from services.tables import Job
from services.web import create_app
from tests.support.cluster import ADMIN, Cluster, cluster, tiny_spec
from tests.support.registering import register
from tests.support.trained import trained as made_without_training


@pytest.fixture
def running(tmp_path: Path, valkey_url: str) -> Iterator[Cluster]:
    home = tmp_path / "home"
    settings = Settings(home, f"sqlite:///{home / 'b.db'}", valkey_url, (home / "artifacts").as_uri())
    with cluster(settings, tmp_path) as made:
        synthetic.draw(tmp_path / "lesions", lesions=40, seed=3)
        register(made.context, "lesions", tmp_path / "lesions")
        made.worker("only")
        yield made


@pytest.fixture
def client(running: Cluster) -> Iterator[Client]:
    """Talks to the API, which a thread of this process serves."""
    server = make_server("127.0.0.1", 0, create_app(running.context.settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    secret = tokens.create(running.context.database, "test", ADMIN.user, "admin")[1]
    with Client(f"http://127.0.0.1:{server.server_port}", secret) as made:
        yield made
    server.shutdown()
    thread.join()
    server.server_close()


def done(made: Cluster, kind: str, spec: dict[str, object]) -> dict[str, object]:
    job, _ = submission.submit(made.context, ADMIN, Request(kind=kind, dataset="lesions", spec=spec))

    def ended() -> dict[str, object] | None:
        seen = views.get_job(made.context.database, ADMIN, str(job["id"]))
        return seen if seen["state"] in ("succeeded", "failed") else None

    seen = made.until(ended, f"{kind} has ended", 600)
    assert seen["state"] == "succeeded", seen["error"]
    return seen


def picture(path: Path, with_exif: bool = False) -> Path:
    """An image of a lesion-like spot; with EXIF that names a person."""
    rows, columns = np.mgrid[0:80, 0:80]
    near = np.exp(-((rows - 40) ** 2 + (columns - 40) ** 2) / 400)[..., None]
    image = Image.fromarray((near * (90, 50, 40) + (1 - near) * (220, 180, 160)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe"
    image.save(path, exif=exif if with_exif else None)
    return path


@pytest.mark.timeout(1800)
def test_the_life_of_a_registered_model(running: Cluster, client: Client, tmp_path: Path) -> None:
    trained = done(running, "train", tiny_spec(2))
    registry = client.registry
    made = registry.register("spots", str(trained["id"]), alias="champion")
    assert (made["version"], made["state"], made["aliases"]) == (1, "ready", ["champion"])
    assert made["metrics"]["intervals"]

    predicted = done(running, "predict", {"model": "spots@champion", "precision": "fp32"})
    assert predicted["model_version_id"] == made["id"]
    by_job = done(running, "predict", {"model": trained["id"], "precision": "fp32"})
    contents = []
    for job in (predicted, by_job):
        contents.append(client.job(str(job["id"])).download("predictions.csv", tmp_path / "p.csv").read_bytes())
    assert contents[0] == contents[1]

    export = client.job(registry.export_onnx("spots@1")["id"]).wait(timeout=900, progress=False)
    assert export.summary["largest_difference"] <= export.summary["bound"] == 1e-4
    graph = export.download("model.onnx", tmp_path / "model.onnx")

    one, broken = picture(tmp_path / "one.jpg", with_exif=True), tmp_path / "two.jpg"
    broken.write_bytes(b"no image")
    answer = registry.predict("spots@champion", [one, broken], overlays=True, timeout=60)
    assert answer["model"] == "spots@1"
    assert "no diagnosis" in answer["intended_use"]
    first, second = answer["images"]
    assert second["error"]
    assert second["probabilities"] is None
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    overlay = Image.open(io.BytesIO(base64.b64decode(first["overlay"].partition(",")[2])))
    assert overlay.size == (224, 224)
    pixels = decode(one.read_bytes(), made["card"]["image_size"])[None]
    (found,) = InferenceSession(graph).run(["probabilities"], {"pixels": pixels})
    assert found[0] == pytest.approx([*first["probabilities"].values()], abs=1e-4)
    with running.context.database.read() as session:
        assert session.scalars(select(Job.id).where(Job.kind == "trial")).all() == []
    assert list(running.context.store.keys("trials/")) == []

    bundle = registry.export("spots@champion", tmp_path / "spots.zip")
    imported = registry.import_model("elsewhere", bundle)
    assert (imported["state"], imported["source"], imported["version"]) == ("ready", "imported", 1)
    assert imported["digest"] == made["digest"]
    assert imported["metrics"] == made["metrics"]
    assert imported["provenance"]["told"]["provenance"]["job"] == trained["id"]
    again = registry.predict("elsewhere", [one], timeout=60)
    assert again["images"][0]["probabilities"] == pytest.approx(first["probabilities"], abs=1e-6)
    with pytest.raises(ApiError, match="imported, so which images it has seen"):
        client.submit("evaluate", dataset="lesions", spec={"model": "elsewhere"})

    (tmp_path / "bad").mkdir()
    for name in ("model.safetensors", "model.json"):
        (tmp_path / "bad" / name).write_bytes(b"{}")
    with pytest.raises(ApiError, match=r"model\.safetensors"):
        registry.import_model("elsewhere", tmp_path / "bad")
    registry.remove("elsewhere@1")
    assert registry.version("elsewhere@1")["state"] == "removed"
    assert registry.predict("spots", [one], timeout=60)["images"][0]["error"] is None


@pytest.mark.timeout(300)
def test_a_model_that_no_worker_answers_for_in_time_leaves_nothing(
    running: Cluster, client: Client, tmp_path: Path
) -> None:
    for process in running.processes:
        process.kill()
    dataset = views.find_dataset(running.context.database, ADMIN, "lesions").id
    job_id = made_without_training(running.context, ADMIN.user, dataset=dataset)
    client.registry.register("spots", job_id)
    client.connection.limits = client.connection.limits._replace(tries=1)
    with pytest.raises(ApiError, match="no worker was free within 1 s") as error:
        client.registry.predict("spots", [picture(tmp_path / "one.png")], timeout=1)
    assert error.value.status == 504
    with running.context.database.read() as session:
        assert session.scalars(select(Job.id).where(Job.kind == "trial")).all() == []
    assert list(running.context.store.keys("trials/")) == []
