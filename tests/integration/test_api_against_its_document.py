"""The API as it is served, against its own `/openapi.json`: whatever is asked, and in whatever order, there is no
unhandled error and no answer that the document does not tell of."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seed_of_run
from hypothesis.errors import Flaky, FlakyStrategyDefinition
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from sqlalchemy import insert

from bgpanet.specs import parse_spec
from services import jobs, tokens, uploads, webhooks
from services.artifacts import sha256_of
from services.claims import Batch, NewArtifact, NewJob, StoredFile
from services.context import Context
from services.order import Offer
from services.settings import Settings
from services.tables import Dataset
from services.uploads import NewUpload
from services.webhooks import NewWebhook
from tests.support.clocked import DATASET
from tests.support.cluster import ADMIN, cluster
from tests.support.schemathesis_hooks import CHECKS, Seeds, give, takes_away
from tests.support.servers import free_port

CASES = 12  # of each operation
RUNS, SCENARIOS, STEPS = 6, 8, 8
QUICK = settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

WORKFLOW = settings(QUICK, derandomize=False, stateful_step_count=STEPS)


@dataclass(frozen=True)
class Served:
    """A service that runs. headers: those of an admin."""

    schema: Any
    seeds: Seeds
    headers: dict[str, str]
    session: requests.Session


def seed(context: Context) -> tuple[Seeds, str]:
    """A data set, jobs in several states, an artifact, figures, log lines, an upload, a webhook; an admin's token."""
    database, store = context.database, context.store
    counts = [{"class": name, "images": 60, "groups": 30} for name in DATASET["classes"]]  # type: ignore[attr-defined]
    values = {**DATASET, "name": "ham10000", "class_counts": counts, "images": 120, "groups": 60}
    with database.write() as session:
        session.execute(insert(Dataset).values(**values))
    spec = parse_spec("train", {"model": "bgpanet_micro"}).model_dump(mode="json")
    plain: dict[str, Any] = {"kind": "train", "name": "a job", "spec": spec, "dataset_id": "d", "created_by": "ada"}
    done, _ = jobs.submit(database, NewJob(**plain))
    claim = jobs.claim(database, "w", Offer(["any"]), 600)
    assert claim is not None
    metric = {"step": 1, "epoch": 0, "name": "train.loss", "value": 0.5}
    jobs.renew(database, claim.lease, 600, Batch(metrics=[metric], logs=[("info", "epoch 1")]))
    path = context.settings.home / "file"
    path.write_bytes(b"image,nv\n1,")
    file = StoredFile(f"jobs/{done}/predictions", sha256_of(path), 11)
    store.put_file(file.key, path, file.sha256)
    summary = {"figures": {}, "classes": DATASET["classes"]}
    jobs.finish(database, claim.lease, summary, [NewArtifact("predictions.csv", "text/csv", file)])
    waiting, _ = jobs.submit(database, NewJob(**plain))
    family, _ = jobs.submit(database, NewJob(**{**plain, "kind": "cross_validate", "children": [NewJob(**plain)] * 2}))
    begun, _ = uploads.begin(context, ADMIN, NewUpload("a.zip", 4, "0" * 64))
    hook = webhooks.create(database, ADMIN, NewWebhook("https://lab.example.org/", ["failed"]), ())[0]["id"]
    told = webhooks.ping(database, ADMIN, hook)["id"]
    token_id, secret = tokens.create(database, "test", "ada", "admin")
    known = {
        "job_id": (done, waiting, family),
        "dataset_id": ("d", "ham10000", "ham10000@1"),
        "name": ("predictions.csv", "bgpanet"),
        "number": (1,),
        "upload_id": (begun["id"],),
        "webhook_id": (hook,),
        "delivery_id": (told,),
    }
    kept = frozenset({"d", "ham10000", "ham10000@1", begun["id"], hook, token_id})
    return Seeds("ham10000", (done, waiting, family), known, kept), secret


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served")
    files = (home / "files").as_uri()
    # No Redis: work is found without it, and a job that is submitted is not to run.
    options = Settings(home, f"sqlite:///{home / 'bgpanet.db'}", "redis://127.0.0.1:1/0", files, queued=100_000)
    with cluster(options, home) as product, requests.Session() as session:
        seeds, secret = seed(product.context)
        address = f"http://127.0.0.1:{(port := free_port())}"
        product.start("api", "--port", str(port), queued_per_user=100_000)

        def ready() -> bool | None:
            try:
                return httpx.get(f"{address}/healthz").status_code == 200 or None
            except httpx.TransportError:
                return None

        product.until(ready, "the API")
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        give(schema, seeds)
        yield Served(schema, seeds, {"Authorization": f"Bearer {secret}"}, session)
        log = product.processes[0].log.read_text()
        assert "unhandled error" not in log, log[-5000:]
        assert "Traceback" not in log, log[-5000:]


def wrong_answers(served: Served, operation: Any, mode: GenerationMode) -> list[str]:
    """What is wrong with the answers to some requests of an operation, as it tells them to be or otherwise."""
    wrong: list[str] = []

    @settings(QUICK, max_examples=CASES)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        try:
            case.call_and_validate(headers=served.headers, session=served.session, checks=CHECKS, timeout=300)
        except FailureGroup as group:
            wrong.extend(f"{operation.label}: {error}" for error in group.exceptions)

    ask()
    return wrong


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as told", "otherwise"])
def test_every_operation_answers_as_it_says_it_does(served: Served, mode: GenerationMode) -> None:
    wrong = [
        problem
        for result in served.schema.get_all_operations()
        for problem in wrong_answers(served, result.ok(), mode)[:2]
    ]
    assert not wrong, "\n\n".join(wrong)


def test_whatever_follows_from_what_answers_as_it_says_it_does(served: Served) -> None:
    wrong: list[str] = []
    asked: list[str] = []

    class Workflow(served.schema.as_state_machine()):  # type: ignore[misc]
        """Goes on from what earlier answers told; it collects what is wrong, so that nothing is asked once more."""

        def step(self, input: Any) -> Any:
            return None if takes_away(served.seeds, input.case) else super().step(input)

        def before_call(self, case: Any) -> None:
            case.headers = {**(case.headers or {}), **served.headers}

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"session": served.session, "timeout": 300}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            asked.append(f"{case.operation.label} {response.status_code}")
            try:
                case.validate_response(response, checks=CHECKS, recorder=self.recorder)
            except FailureGroup as group:
                wrong.extend(f"{case.operation.label}: {error}" for error in group.exceptions)

    for number in range(RUNS):
        # What is there changes from one scenario to the next, and with it what can follow, which Hypothesis minds.
        with contextlib.suppress(Flaky, FlakyStrategyDefinition):
            seed_of_run(number)(Workflow).run(settings=settings(WORKFLOW, max_examples=SCENARIOS))
    assert not wrong, "\n\n".join(wrong[:10])
    assert len(asked) > RUNS * SCENARIOS, asked
    assert any("20" in one[-3:] and "{" in one for one in asked), asked
