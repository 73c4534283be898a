"""The API as it is served, against its own `/openapi.json`: whatever is asked, and in whatever order, there is no
unhandled error and no answer that the document does not tell of."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from sqlalchemy import insert

from services import jobs, tokens
from services.artifacts import sha256_of
from services.claims import Batch, NewArtifact, NewJob, StoredFile
from services.context import Context
from services.order import Offer
from services.settings import Settings
from services.tables import Dataset
from tests.support.clocked import DATASET
from tests.support.cluster import cluster
from tests.support.schemathesis_hooks import CHECKS, Seeds, give, takes_away
from tests.support.servers import free_port

CASES, SCENARIOS, STEPS = 6, 25, 8
QUICK = settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Served:
    """A service that runs. headers: those of an admin."""

    schema: Any
    seeds: Seeds
    headers: dict[str, str]
    session: requests.Session


def seed(context: Context) -> tuple[Seeds, str]:
    """A data set, jobs in several states, an artifact, figures, log lines, an upload; and an admin's token."""
    database, store = context.database, context.store
    counts = [{"class": name, "images": 60, "groups": 30} for name in DATASET["classes"]]  # type: ignore[attr-defined]
    values = {**DATASET, "name": "ham10000", "class_counts": counts, "images": 120, "groups": 60}
    with database.write() as session:
        session.execute(insert(Dataset).values(**values))
    plain: dict[str, Any] = {"kind": "train", "name": "a job", "spec": {"model": {"name": "bgpanet_micro"}}}
    plain |= {"dataset_id": "d", "created_by": "ada"}
    done, _ = jobs.submit(database, NewJob(**plain))
    claim = jobs.claim(database, "w", Offer(["any"]), 600)
    assert claim is not None
    metric = {"step": 1, "epoch": 0, "name": "train.loss", "value": 0.5}
    jobs.renew(database, claim.lease, 600, Batch(metrics=[metric], logs=[("info", "epoch 1")]))
    path = context.settings.home / "file"
    path.write_bytes(b"0123456789")
    file = StoredFile(f"jobs/{done}/report", sha256_of(path), 10)
    store.put_file(file.key, path, file.sha256)
    summary = {"figures": {}, "classes": DATASET["classes"]}
    jobs.finish(database, claim.lease, summary, [NewArtifact("report.json", "application/json", file)])
    waiting, _ = jobs.submit(database, NewJob(**plain))
    family, _ = jobs.submit(database, NewJob(**{**plain, "kind": "cross_validate", "children": [NewJob(**plain)] * 2}))
    token_id, secret = tokens.create(database, "test", "ada", "admin")
    known = {
        "job_id": (done, waiting, family),
        "dataset_id": ("d", "ham10000", "ham10000@1"),
        "name": ("report.json", "bgpanet"),
        "number": (1,),
    }
    return Seeds(
        "ham10000", (done, waiting, family), known, frozenset({"d", "ham10000", "ham10000@1", token_id})
    ), secret


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
            case.call_and_validate(headers=served.headers, session=served.session, checks=CHECKS, timeout=30)
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
    class Workflow(served.schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": served.headers, "session": served.session, "timeout": 30}

        def step(self, input: Any) -> Any:
            return None if takes_away(served.seeds, input.case) else super().step(input)

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            case.validate_response(response, checks=CHECKS, recorder=self.recorder)

    Workflow.run(settings=settings(QUICK, max_examples=SCENARIOS, stateful_step_count=STEPS))
