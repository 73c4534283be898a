"""`bgpanet up` as a newcomer uses it: started, given work by command line and client, hurt, stopped."""

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from bgpanet.data import synthetic
from services.client import ENDED, ApiError, Client, JobFailed, JobHandle
from tests.support.cluster import tiny_spec

T = TypeVar("T")


def of_those_that_live(
    processes: list[psutil.Process], ask: Callable[[psutil.Process], T]
) -> list[tuple[psutil.Process, T]]:
    """What processes answer; a run's may have ended since they were listed."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append((process, ask(process)))
    return found


@dataclass
class Product:
    """A running `bgpanet up`."""

    home: Path
    process: subprocess.Popen[str]
    url: str

    @classmethod
    def start(cls, home: Path, workers: int = 1) -> "Product":
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "up", "--home", str(home), "--port", "0", "--workers", str(workers)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(home),
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: http://127.0.0.1:"), line
        return cls(home, process, line.removeprefix("ready: ").strip())

    def client(self) -> Client:
        return Client(self.url, (self.home / "token").read_text().strip())

    def parts(self) -> list[psutil.Process]:
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def part(self, word: str) -> psutil.Process:
        own = psutil.Process(self.process.pid).children()
        (found,) = [p for p, line in of_those_that_live(own, psutil.Process.cmdline) if word in " ".join(line)]
        return found

    def stop(self) -> float:
        """Seconds that stopping took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(240) == 0
        took = time.monotonic() - began
        self.process.__exit__(None, None, None)
        return took

    def bgpanet(self, *arguments: str, status: int = 0) -> str:
        """What the command printed on standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment(self.home),
            timeout=600,
        )
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if status == 0 else done.stderr


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BGPANET_")}
    return {**clean, "BGPANET_HOME": str(home), "BGPANET_LEASE_SECONDS": "5", "BGPANET_OFFLINE": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    synthetic.draw(folder / "lesions", lesions=40)
    synthetic.draw(folder / "others", lesions=30, seed=5)
    synthetic.draw_unlabelled(folder / "new", count=6, seed=1, broken=1)
    return folder


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Product]:
    made = Product.start(tmp_path_factory.mktemp("product") / "home")
    try:
        for name, format in (("lesions", "ham10000"), ("others", "ham10000"), ("new", "folder")):
            made.bgpanet("dataset", "add", name, "--format", format, "--path", str(data / name))
        yield made
    finally:
        made.stop()


def wait_until(condition: Any, what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def ready(product: Product) -> bool:
    try:
        return httpx.get(f"{product.url}/readyz", timeout=60).status_code == 200
    except httpx.HTTPError:
        return False


def ended(client: Client, job: JobHandle) -> bool:
    """Whether the job has ended; a service that does not answer for a moment is asked again."""
    try:
        return job.refresh().state in ENDED
    except ApiError as error:
        if error.status != 0:
            raise
        return False


# ── Work ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_train_cross_validate_and_predict_from_the_command_line(product: Product, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(tiny_spec(epochs=2)))
    trained = json.loads(
        product.bgpanet("submit", "train", "--dataset", "lesions", "-f", str(spec), "--follow", "--json")
    )
    assert trained["state"] == "succeeded"
    assert trained["summary"]["leakage"]["groups"] == 0
    crossed = product.bgpanet(
        "submit", "cross_validate", "--dataset", "lesions", "--model", "bgpanet_micro", "-f", str(spec), "--follow",
        "--set", "training.epochs=1",
    ).strip()  # fmt: skip
    folds = json.loads(product.bgpanet("job", crossed, "--json"))
    trained_on = json.loads(product.bgpanet("dataset", "show", "lesions", "--json"))
    assert folds["children"]["succeeded"] == 2
    assert folds["summary"]["pooled"]["n"] == trained_on["images"]
    predicted = product.bgpanet("submit", "predict", "--dataset", "new", "--model", trained["id"], "--follow").strip()
    assert "predictions.csv" in product.bgpanet("artifacts", predicted)
    product.bgpanet("download", predicted, "predictions.csv", "--to", str(tmp_path))
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + 7
    assert lines[0].startswith("image_id,group,fold,truth,predicted,error,p_akiec")
    evaluated = product.bgpanet(
        "submit", "evaluate", "--dataset", "others", "--model", trained["id"], "--follow"
    ).strip()
    elsewhere = json.loads(product.bgpanet("job", evaluated, "--json"))["summary"]
    others = json.loads(product.bgpanet("dataset", "show", "others", "--json"))
    assert elsewhere["figures"]["n"] == others["images"]
    seen = product.bgpanet(
        "submit", "evaluate", "--dataset", "lesions", "--model", trained["id"], "--follow", status=1
    )  # fmt: skip
    assert "had part in the model's training" in seen
    explained = product.bgpanet(
        "submit", "explain", "--dataset", "lesions", "--model", trained["id"], "--set", "count=2", "--follow"
    ).strip()
    files = [row["name"] for row in json.loads(product.bgpanet("artifacts", explained, "--json"))]
    assert [name.endswith(".png") for name in sorted(files)] == [True, True, False]
    product.bgpanet("download", explained, sorted(files)[0], "--to", str(tmp_path))
    assert (tmp_path / sorted(files)[0]).read_bytes().startswith(b"\x89PNG")
    assert "balanced accuracy" in product.bgpanet("jobs")
    assert "claimed by" in product.bgpanet("job", trained["id"])
    assert "images to train" in product.bgpanet("logs", trained["id"])
    assert json.loads(product.bgpanet("watch", trained["id"], "--json")) == trained
    wait_until(
        lambda: [row["state"] for row in json.loads(product.bgpanet("workers", "--json"))] == ["idle"],
        "the slot is told to be free",
    )


def test_cross_validations_on_the_same_folds_are_compared_and_others_refused(product: Product) -> None:
    with product.client() as client:
        ids = {}
        for name, model, seed in (("a", "bgpanet_micro", 0), ("b", "swin_micro", 0), ("c", "swin_micro", 1)):
            spec = {**tiny_spec(epochs=1), "model": model, "split": {"folds": 2, "validation_folds": 2, "seed": seed}}
            ids[name] = client.submit("cross_validate", dataset="lesions", spec=spec).wait(timeout=600)
        single = client.submit("train", dataset="lesions", spec=tiny_spec(epochs=1)).wait(timeout=600)
    rows = json.loads(product.bgpanet("compare", ids["b"].id, ids["a"].id, "--json"))
    assert [row["figure"] for row in rows] == ["balanced_accuracy", "macro_f1", "accuracy", "auroc_macro"]
    means = [ids[name].summary["mean"]["balanced_accuracy"]["mean"] for name in ("a", "b")]
    assert (rows[0]["mean"], rows[0]["reference_mean"]) == pytest.approx(tuple(means))
    assert "balanced accuracy" in product.bgpanet("compare", ids["b"].id, ids["a"].id)
    assert "was tested on other images" in product.bgpanet("compare", ids["b"].id, ids["c"].id, status=1)
    assert "is of kind train; only cross-validations" in product.bgpanet("compare", ids["b"].id, single.id, status=1)
    assert "name two or more" in product.bgpanet("compare", single.id, status=2)


def test_a_study_trains_its_cells_and_ends_with_its_tables_also_where_a_cell_fails(
    product: Product, tmp_path: Path
) -> None:
    spec = tmp_path / "study.yaml"
    variants = [{"name": "BGPANet"}, {"name": "Swin", "set": {"model": "swin_micro"}},
                {"name": "CE", "set": {"loss": "ce", "training": {"epochs": 5000, "patience": 5000}}}]  # fmt: skip
    spec.write_text(json.dumps({**tiny_spec(epochs=1), "variants": variants, "reference": "Swin"}))
    with product.client() as client:
        job = client.job(product.bgpanet("submit", "study", "--dataset", "lesions", "-f", str(spec)).strip())
        endless = next(child for child in job.children() if ", CE, " in child.values["name"])
        wait_until(lambda: endless.refresh().values["progress"]["fraction"] > 0, "the endless one runs", 600)
        for child in job.children():
            if ", CE, " in child.values["name"]:
                child.cancel()
        job.wait(timeout=600)
        assert [row["variant"] for row in job.summary["variants"]] == ["BGPANet", "Swin"]
        assert [row["variant"] for row in job.summary["missing"]] == ["CE", "CE"]
        table = job.download("table.md", tmp_path).read_text()
        assert "| BGPANet |" in table
        assert "fold 0 is missing: cancelled" in table
        assert "2 trainings are missing" in product.bgpanet("jobs")
        with httpx.Client(base_url=product.url, follow_redirects=True, timeout=60) as signed:
            hidden = re.search(r'name="csrf" value="([^"]+)"', signed.get("/login").text)
            assert hidden is not None
            signed.post("/login", data={"csrf": hidden[1], "token": (product.home / "token").read_text().strip()})
            page = signed.get(f"/jobs/{job.id}")
        assert page.status_code == 200
        assert "Against Swin" in page.text
        assert "is missing: cancelled" in page.text


def test_the_client_waits_reads_curves_and_downloads(product: Product, tmp_path: Path) -> None:
    seen: list[float] = []
    with product.client() as client:
        job = client.submit("train", dataset="lesions", spec=tiny_spec(epochs=3))
        job.wait(timeout=600, on_update=lambda now: seen.append(now.values["progress"]["fraction"]), every=0.1)
        assert seen == sorted(seen)
        curves = {item["name"]: item["points"] for item in client.get(f"jobs/{job.id}/metrics")["items"]}
        assert curves.keys() >= {"train_loss", "validation_loss", "validation_balanced_accuracy", "learning_rate",
                                 "loss_weight_ce", "loss_weight_focal"}  # fmt: skip
        report = json.loads(job.download("report.json", tmp_path).read_text())
        assert report["figures"] == job.summary["figures"]


def test_a_submission_that_is_repeated_with_its_key_is_one_job(product: Product) -> None:
    with product.client() as client:
        ids = {client.submit("train", dataset="lesions", spec=tiny_spec(1), idempotency_key="k").id for _ in range(3)}
        assert len(ids) == 1
        client.job(ids.pop()).wait(timeout=600)


def test_a_wrong_submission_is_told_in_full(product: Product) -> None:
    told = product.bgpanet(
        "submit", "train", "--dataset", "lesion", "--set", "training.epochs=0", "--set", "modle=x", status=1
    )
    for field in ("dataset", "spec.training.epochs", "spec.modle"):
        assert field in told
    assert "did you mean" in product.bgpanet(
        "submit", "train", "--dataset", "lesions", "--model", "bgpanet_mico", status=1
    )  # fmt: skip
    with product.client() as client, pytest.raises(ApiError, match="there is no job"):
        client.job("nothing")


def test_a_job_that_fails_says_why(product: Product, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{name}{number}.jpg").write_bytes(b"\xff\xd8\xff no image %d" % number + name.encode())
    with product.client() as client:
        with pytest.raises(ApiError, match="not one of them can be read"):
            client.add_dataset("broken", "folder", tmp_path)
        split = {"unit": "image", "folds": 20}  # of images there are too few, which the run finds out
        job = client.submit("train", dataset="lesions", spec={**tiny_spec(), "split": split})
        with pytest.raises(JobFailed, match="fewer than 20 folds") as caught:
            job.wait(timeout=600)
        assert (caught.value.job["state"], caught.value.job["reason"]) == ("failed", "invalid_input")
        assert "failed (invalid_input)" in product.bgpanet("jobs")


def test_a_running_job_ends_when_it_is_cancelled(product: Product) -> None:
    with product.client() as client:
        job = client.submit("train", dataset="lesions", spec=tiny_spec(epochs=5000, patience=5000))
        wait_until(lambda: job.refresh().values["progress"]["fraction"] > 0, "it runs")
        product.bgpanet("cancel", job.id)
        with pytest.raises(JobFailed, match="cancelled"):
            job.wait(timeout=600, every=0.1)
        wait_until(lambda: [w["state"] for w in client.workers()] == ["idle"], "the slot is free")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("submit", "train", "--dataset", "x", "--set", "a=["), "--set a=["),
        (("submit", "train", "--dataset", "x", "--set", "training.epochs=2024-01-01"), "not JSON serializable"),
        (("submit", "train", "--dataset", "x", "--set", "training.learning_rate=.nan"), "not JSON compliant"),
        (("submit", "train", "--dataset", "x", "-f", sys.executable), "codec can't decode"),
        (("job", "x/../../tokens"), "there is no"),
        (("dataset", "show", "../tokens"), "there is no"),
        (("dataset", "show", ".."), "there is no"),
    ],
)
def test_what_a_person_types_wrong_is_told_without_a_traceback(
    product: Product, arguments: tuple[str, ...], told: str
) -> None:
    status = 2 if arguments[0] == "submit" else 4
    answer = " ".join(product.bgpanet(*arguments, status=status).split())
    assert told in answer
    assert "Traceback" not in answer


# ── Safety ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_secrets_are_readable_by_their_owner_only(product: Product) -> None:
    for name in ("token", "redis.conf", "url"):
        assert stat.S_IMODE((product.home / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(product.home.stat().st_mode) == 0o700
    secret = (product.home / "token").read_text().strip()
    lines = of_those_that_live(product.parts(), psutil.Process.cmdline)
    words = [word for _, line in lines for word in line]
    assert len(lines) > 3
    assert not [word for word in words if secret in word]


def test_nobody_is_answered_without_a_token(product: Product) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx.get(f"{product.url}/api/v1/jobs", headers=headers, timeout=60).status_code == 401
    assert httpx.get(f"{product.url}/healthz", timeout=60).status_code == 200
    assert httpx.get(f"{product.url}/jobs", timeout=60).status_code == 302


def test_it_listens_on_loopback_alone(product: Product) -> None:
    connections = of_those_that_live(product.parts(), lambda process: process.net_connections("inet"))
    addresses = {one.laddr.ip for _, each in connections for one in each if one.status == "LISTEN"}
    assert addresses == {"127.0.0.1"}


# ── Deaths ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("part", ["services.cli worker", "services.cli scheduler", "-server 127.0.0.1", "gunicorn"])
def test_a_part_that_dies_is_started_again_and_work_goes_on(product: Product, part: str) -> None:
    with product.client() as client:
        job = client.submit("train", dataset="lesions", spec=tiny_spec(epochs=40, checkpoint_seconds=0, patience=100))
        wait_until(lambda: job.refresh().values["progress"]["fraction"] > 0.1, "it runs")
        product.part(part).kill()
        wait_until(lambda: ended(client, job), "it ends", 600)
        wait_until(lambda: ready(product), "it is ready again")
        after = client.submit("train", dataset="lesions", spec=tiny_spec(epochs=1)).wait(timeout=600)
        assert (job.state, after.state) == ("succeeded", "succeeded")


def test_it_stops_within_ten_seconds_in_the_middle_of_work_and_goes_on_where_it_was(tmp_path: Path, data: Path) -> None:
    product = Product.start(tmp_path / "home", workers=2)
    parts = product.parts()
    try:
        token = (product.home / "token").read_text()
        with product.client() as client:
            client.add_dataset("lesions", "ham10000", data / "lesions")
            job = client.submit("train", dataset="lesions", spec=tiny_spec(epochs=200, patience=200))
            wait_until(lambda: job.refresh().values["progress"]["fraction"] > 0.1, "it runs")
        parts = product.parts()
        assert len(parts) >= 7
    finally:
        assert product.stop() < 10
    assert not [process for process in parts if process.is_running()]
    product = Product.start(tmp_path / "home")
    try:
        assert (product.home / "token").read_text() == token
        with product.client() as client:
            again = client.job(job.id).wait(timeout=600)
            attempts = client.get(f"jobs/{job.id}/attempts")["items"]
        assert again.state == "succeeded"
        assert [attempt["outcome"] for attempt in attempts] == ["released", "succeeded"]
        assert attempts[1]["resumed_from_step"] > 0
    finally:
        product.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not end children with their parent")
def test_when_it_is_killed_nothing_that_it_started_stays(tmp_path: Path) -> None:
    product = Product.start(tmp_path / "home")
    parts = product.parts()
    with product.process:
        product.process.kill()
    assert psutil.wait_procs(parts, timeout=120)[1] == []


def test_a_second_one_on_the_same_home_is_refused_and_harms_nothing(product: Product) -> None:
    assert f"the product runs there already at {product.url}" in " ".join(
        product.bgpanet("up", "--home", str(product.home), "--port", "0", status=1).split()
    )
    assert product.bgpanet("jobs", "--json")


def test_a_port_that_is_taken_is_told(product: Product, tmp_path: Path) -> None:
    port = product.url.rpartition(":")[2]
    told = product.bgpanet("up", "--home", str(tmp_path), "--port", port, status=1)
    assert "choose another --port" in told
