"""The Python client: `Client().submit("train", dataset="ham10000", spec={…}).wait()`."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from services import transfers
from services.card import job_card
from services.client_errors import ApiError, Invalid, JobFailed, Unreachable
from services.connection import KEY, Connection, Limits, path_part
from services.following import ENDED, Following, JobEvent
from services.model_client import ModelRegistry
from services.settings import Settings

__all__ = ["ENDED", "ApiError", "Client", "JobEvent", "JobFailed", "JobHandle"]

REFRESH_SECONDS = 1.0  # at least between two looks at a job whose children report


@dataclass
class JobHandle:
    """A job on the service. `values` is what the service said of it last."""

    client: "Client"
    values: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.values["id"])

    @property
    def state(self) -> str:
        return str(self.values["state"])

    @property
    def summary(self) -> dict[str, Any]:
        return dict(self.values["summary"])

    def refresh(self) -> "JobHandle":
        """Asks the service again."""
        self.values = self.client.job(self.id).values
        return self

    def wait(
        self,
        timeout: float | None = None,
        on_update: Callable[["JobHandle"], None] | None = None,
        every: float = 1.0,
        progress: bool | None = None,
    ) -> "JobHandle":
        """Waits until the job has ended; `on_update` sees it whenever something is new.

        progress: shows it: as a bar in a terminal, a card in a notebook, else as lines. None: where somebody looks (a
        terminal or notebook) and there is no `on_update`. every: seconds between two looks where the service has no
        stream to spare.

        Raises:
            JobFailed: it ended without success.
            TimeoutError: it had not ended after `timeout` seconds.
        """
        from services.progress import shown

        with shown(progress if on_update is None else bool(progress)) as show:
            following = Following(self.client.connection, self.id, ("state", "progress", "child"), every, timeout)
            with closing(following):
                for _ in self._kept_up(following):
                    show(self)
                    if on_update is not None:
                        on_update(self)
        if self.state != "succeeded":
            raise JobFailed(self.values)
        return self

    def _kept_up(self, events: Iterator[JobEvent]) -> Iterator[JobEvent]:
        """The events, each after `values` says what it says."""
        looked = 0.0
        for event in events:
            if event.kind == "progress":
                self.values = {**self.values, "progress": event.data}
            elif event.kind == "end":
                self.values = {**event.data, "queue": None}
            elif event.kind == "state" or time.monotonic() - looked > REFRESH_SECONDS:
                told = self.values["progress"]
                try:
                    self.refresh()
                except Unreachable:
                    continue  # the next event tells it
                self.values["progress"] = told  # a later one would be followed by those that events still tell
                looked = time.monotonic()
            yield event

    def follow(self, *topics: str, timeout: float | None = None) -> Iterator[JobEvent]:
        """What happens to the job, from its first moment to its end, each once, as it comes.

        topics: of `state`, `metrics`, `log`, `progress` and `child`; none: all. The last event is `end`.

        Raises:
            ApiError: the service refuses, or was silent for two minutes.
            TimeoutError: it had not ended after `timeout` seconds.
        """
        return Following(self.client.connection, self.id, topics, timeout=timeout)

    def cancel(self) -> "JobHandle":
        """Asks for an end; a running job ends at its next step."""
        self.values = self.client.post(f"jobs/{path_part(self.id)}/cancel", repeatable=True)
        return self

    def pause(self) -> "JobHandle":
        """Asks it to stop: at once where it waits, else after it has written a checkpoint."""
        self.values = self.client.post(f"jobs/{path_part(self.id)}/pause", repeatable=True)
        return self

    def resume(self) -> "JobHandle":
        """Lets a paused job go on."""
        self.values = self.client.post(f"jobs/{path_part(self.id)}/resume", repeatable=True)
        return self

    def set_priority(self, priority: int) -> "JobHandle":
        """Gives it and its children another place in the queue."""
        self.values = self.client.patch(f"jobs/{path_part(self.id)}", {"priority": priority})
        return self

    def retry(self) -> "JobHandle":
        """The job that tries this one again, from its last checkpoint and with its finished children."""
        return JobHandle(self.client, self.client.post(f"jobs/{path_part(self.id)}/retry", repeatable=True))

    def clone(self, spec: Mapping[str, Any] | None = None, **changes: Any) -> "JobHandle":
        """A new job like this one but for some changes: fields of its spec, and name, dataset, priority, time_limit,
        on_failure."""
        key = {KEY: str(uuid.uuid4())}
        body = {**changes, "spec": dict(spec or {})}
        return JobHandle(self.client, self.client.post(f"jobs/{path_part(self.id)}/clone", body, key))

    def metrics(self, *names: str) -> dict[str, list[dict[str, Any]]]:
        """Every figure by name: points with `step`, `epoch`, `value`."""
        items = self.client.get(f"jobs/{path_part(self.id)}/metrics", {"name": list(names)})["items"]
        return {item["name"]: item["points"] for item in items}

    def logs(self, after: int = 0) -> list[dict[str, Any]]:
        """Log lines with ids above `after`."""
        return list(self.client.get(f"jobs/{path_part(self.id)}/logs", {"after": after})["items"])

    def children(self) -> list["JobHandle"]:
        """Folds, cells of a study, or shards, in their order; those that were tried again, which have `superseded_by`,
        before those that took their place."""
        return [
            JobHandle(self.client, item) for item in self.client.get(f"jobs/{path_part(self.id)}/children")["items"]
        ]

    def events(self) -> list[dict[str, Any]]:
        """What happened to the job, in order."""
        return list(self.client.get(f"jobs/{path_part(self.id)}/events")["items"])

    def artifacts(self) -> list[dict[str, Any]]:
        """Name, size, digest and media type of each file of the result."""
        return list(self.client.get(f"jobs/{path_part(self.id)}/artifacts")["items"])

    def download(self, name: str, path: Path | str) -> Path:
        """Saves an artifact, checked against its digest; one that was cut off goes on where it stopped.

        `path` is a file, or a folder that exists.
        """
        return self.client.download(self.id, name, Path(path))

    def _repr_html_(self) -> str:
        """A card, which notebooks show."""
        return job_card(self.values, self.client.url)


class Client:
    """Talks to one service. Without arguments: `BGPANET_URL` and `BGPANET_TOKEN`, else those of the home."""

    def __init__(self, url: str | None = None, token: str | None = None, limits: Limits | None = None) -> None:
        settings = Settings.load()
        url = url or settings.url or _read(settings.home / "url")
        token = token or settings.token or _read(settings.home / "token")
        if not url or not token:
            missing = "address" if not url else "token"
            raise Unreachable(f"no {missing} of a service: set BGPANET_URL and BGPANET_TOKEN, or start `bgpanet up`")
        if not url.startswith(("http://", "https://")):
            raise Unreachable(f"{url} is no address of a service: it must begin with http:// or https://")
        if not token.isascii():
            raise Unreachable("the token has letters that no token has; copy it again")
        self.connection = Connection(url, token, limits)
        self.url = self.connection.url
        self.registry = ModelRegistry(self.connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self.connection.close()

    # ── Jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(
        self,
        kind: str,
        *,
        dataset: str,
        spec: Mapping[str, Any] | None = None,
        project: str | None = None,
        name: str | None = None,
        priority: int = 0,
        after: Sequence[str] = (),
        time_limit: int | None = None,
        on_failure: str | None = None,
        idempotency_key: str | None = None,
    ) -> JobHandle:
        """Queues a job. It is queued once, even where the answer is lost and the request repeated.

        project: that it belongs to; None: one's own; after: ids of jobs that have to succeed first; time_limit: seconds
        of work; on_failure: `finish_rest` or `fail_fast`, what becomes of the other folds when one fails.
        """
        body: dict[str, Any] = {"kind": kind, "dataset": dataset, "spec": dict(spec or {}), "priority": priority}
        options = {"name": name, "time_limit": time_limit, "on_failure": on_failure, "after": list(after) or None}
        options["project"] = project
        body |= {field: value for field, value in options.items() if value is not None}
        key = idempotency_key or str(uuid.uuid4())
        return JobHandle(self, self.post("jobs", body, {KEY: key}))

    def job(self, job_id: str) -> JobHandle:
        """One job."""
        return JobHandle(self, self.get(f"jobs/{path_part(job_id)}"))

    def jobs(self, **filters: str) -> Iterator[JobHandle]:
        """Jobs without a parent, newest first; filters: state, kind, dataset, q."""
        for item in self._pages("jobs", filters):
            yield JobHandle(self, item)

    def download(
        self, job_id: str, name: str, path: Path, on_received: Callable[[int, int], None] | None = None
    ) -> Path:
        """Saves an artifact, checked against its digest; see JobHandle.download. `on_received`: bytes, and in all."""
        return transfers.download(self.connection, job_id, name, path, on_received)

    # ── Everything else ───────────────────────────────────────────────────────────────────────────────────────────

    def add_dataset(
        self,
        name: str,
        format: str,
        path: Path | str,
        *,
        project: str | None = None,
        licence: str | None = None,
        citation: str | None = None,
        lock: float | None = None,
        wait: bool = True,
        on_update: Callable[[JobHandle], None] | None = None,
        on_sent: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Registers a data set, and waits until it is ready; `on_update` sees the job that does it.

        path: a folder that workers see, `s3://bucket/prefix`, or a zip or tar on this machine, which is uploaded first
        (`on_sent` sees bytes sent and in all). lock: the share of it that no training ever sees, for a last test.
        project: that it belongs to; None: one's own.
        Returns the data set: the version that is there already where the content is the same.

        Raises:
            ApiError: it was refused, with every problem (`status` 422).
            JobFailed: it could not be registered for another reason.
        """
        body: dict[str, Any] = {"name": name, "format": format, "source": self._source(path, on_sent)}
        if project is not None:
            body["project"] = project
        if lock is not None:
            body["locked"] = {"share": lock}
        body |= {field: value for field, value in (("licence", licence), ("citation", citation)) if value is not None}
        made = self.post("datasets", body, {KEY: str(uuid.uuid4())})
        if not wait or made["state"] != "registering":
            return made
        try:
            self.job(made["job"]).wait(on_update=on_update, every=0.2, progress=False)
        except JobFailed as error:
            if error.job["reason"] == "invalid_input":
                raise self._refusal(made["id"]) from None
            raise
        return self.dataset(made["id"])

    def _source(self, path: Path | str, on_sent: Callable[[int, int], None] | None) -> dict[str, str]:
        if str(path).startswith("s3://"):
            return {"s3": str(path)}
        if Path(path).is_file():
            return {"upload": str(self.upload(path, on_sent)["id"])}
        return {"path": str(Path(path).absolute())}

    def upload(self, path: Path | str, on_sent: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Sends a file in parts. One that was cut off goes on where it stopped, also after a new start.

        `on_sent` is called with bytes that are there and in all. Returns the complete upload.

        Raises:
            ApiError: it was refused, or arrived damaged.
            OSError: the file can't be read.
        """
        return transfers.upload(self.connection, Path(path), on_sent)

    def _refusal(self, dataset_id: str) -> Invalid:
        refused = self.dataset(dataset_id)
        errors = [{"field": finding["where"], "detail": finding["what"]} for finding in refused["findings"]]
        detail = f"{refused['name']} was refused" if errors else refused["error"]
        return Invalid(422, {"detail": detail, "errors": errors})

    def datasets(self) -> Iterator[dict[str, Any]]:
        """Data sets, newest first."""
        return self._pages("datasets", {})

    def dataset(self, name: str) -> dict[str, Any]:
        """One data set, by name (its newest version), `name@version` or id."""
        return self.get(f"datasets/{path_part(name)}")

    def remove_dataset(self, name: str) -> None:
        """Deletes a data set's files; the rest is kept where jobs used it."""
        self.delete(f"datasets/{path_part(name)}")

    def revoke_token(self, token_id: str) -> None:
        """Ends a token at once."""
        self.delete(f"tokens/{path_part(token_id)}")

    def workers(self) -> list[dict[str, Any]]:
        """Worker slots."""
        return list(self.get("workers")["items"])

    def worker_use(self, hours: int = 24, points: int = 96) -> list[dict[str, Any]]:
        """How busy worker slots were over the last hours, in so many equal times, the last of which ends now."""
        return list(self.get("workers/use", {"hours": str(hours), "points": str(points)})["items"])

    def drain_worker(self, name: str) -> list[dict[str, Any]]:
        """Has a worker leave, by its name or a slot's; its jobs go on elsewhere. Returns its slots."""
        place = "/".join(map(path_part, name.split("/")))
        return list(self.post(f"workers/{place}/drain", repeatable=True)["items"])

    def models(self) -> list[dict[str, Any]]:
        """Networks that can be trained."""
        return list(self.get("models", {"kind": "network"})["items"])

    # ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """GET `path` under /api/v1. Raises ApiError."""
        return self.connection.json("GET", path, params=query)

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        repeatable: bool = False,
    ) -> dict[str, Any]:
        """POST a JSON body.

        It is sent again after a break of the line only with an `Idempotency-Key`, or where it is `repeatable`: where
        twice comes to the same as once. Raises ApiError.
        """
        return self.connection.json("POST", path, json=body, headers=headers, repeatable=repeatable)

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PUT a JSON body, which sets values, so that twice is once. Raises ApiError."""
        return self.connection.json("PUT", path, json=body, repeatable=True)

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PATCH with a JSON body, which sets values, so that twice is once. Raises ApiError."""
        return self.connection.json("PATCH", path, json=body, repeatable=True)

    def delete(self, path: str) -> None:
        """DELETE `path`. Raises ApiError."""
        self.connection.json("DELETE", path)

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = self.get(path, {**query, **({"cursor": cursor} if cursor else {})})
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
