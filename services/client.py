"""The Python client: `Client().submit("train", dataset="ham10000", spec={…}).wait()`."""

import base64
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from services.settings import Settings

ENDED = ("succeeded", "failed", "cancelled")
NAME = re.compile(r"[A-Za-z0-9._-]+(@[0-9]+)?")
TRIES = 5
SILENCE_SECONDS = 120.0  # that `wait` forgives


class ApiError(Exception):
    """The service refused a request, or could not be reached (`status` 0). The text says what to do."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status, self.problem = status, dict(problem)
        lines = [str(problem.get("detail") or problem.get("title") or f"HTTP {status}")]
        lines += [f"  {error['field'] or 'request'}: {error['detail']}" for error in problem.get("errors", ())]
        super().__init__("\n".join(lines))


class JobFailed(Exception):
    """A job that was waited for ended without success. `job` is its last state."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = dict(job)
        super().__init__(f"job {job['id']} {job['state']}: {job['reason'] or ''} {job['error'] or ''}".strip())


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
        self, timeout: float | None = None, on_update: Callable[["JobHandle"], None] | None = None, every: float = 1.0
    ) -> "JobHandle":
        """Waits until the job has ended; `on_update` sees it after every look, `every` seconds apart.

        Raises:
            JobFailed: it ended without success.
            TimeoutError: it had not ended after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        heard = time.monotonic()
        while True:
            try:
                self.refresh()
                heard = time.monotonic()
            except ApiError as error:
                # A service that is started anew meanwhile is no reason to give up a job of hours.
                if error.status != 0 or time.monotonic() - heard > SILENCE_SECONDS:
                    raise
            if on_update is not None:
                on_update(self)
            if self.state in ENDED:
                break
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job {self.id} is still {self.state} after {timeout:.0f} s")
            time.sleep(every)
        if self.state != "succeeded":
            raise JobFailed(self.values)
        return self

    def cancel(self) -> "JobHandle":
        """Asks for an end; a running job ends at its next step."""
        self.values = self.client.post(f"jobs/{_part(self.id)}/cancel")
        return self

    def pause(self) -> "JobHandle":
        """Asks it to stop: at once where it waits, else after it has written a checkpoint."""
        self.values = self.client.post(f"jobs/{_part(self.id)}/pause")
        return self

    def resume(self) -> "JobHandle":
        """Lets a paused job go on."""
        self.values = self.client.post(f"jobs/{_part(self.id)}/resume")
        return self

    def set_priority(self, priority: int) -> "JobHandle":
        """Gives it and its children another place in the queue."""
        self.values = self.client.patch(f"jobs/{_part(self.id)}", {"priority": priority})
        return self

    def retry(self) -> "JobHandle":
        """The job that tries this one again, from its last checkpoint and with its finished children."""
        return JobHandle(self.client, self.client.post(f"jobs/{_part(self.id)}/retry"))

    def clone(self, spec: Mapping[str, Any] | None = None, **changes: Any) -> "JobHandle":
        """A new job like this one but for some changes: fields of its spec, and name, dataset, priority, time_limit,
        on_failure."""
        key = {"Idempotency-Key": str(uuid.uuid4())}
        body = {**changes, "spec": dict(spec or {})}
        return JobHandle(self.client, self.client.post(f"jobs/{_part(self.id)}/clone", body, key))

    def metrics(self, *names: str) -> dict[str, list[dict[str, Any]]]:
        """Every figure by name: points with `step`, `epoch`, `value`."""
        items = self.client.get(f"jobs/{_part(self.id)}/metrics", {"name": list(names)})["items"]
        return {item["name"]: item["points"] for item in items}

    def logs(self, after: int = 0) -> list[dict[str, Any]]:
        """Log lines with ids above `after`."""
        return list(self.client.get(f"jobs/{_part(self.id)}/logs", {"after": after})["items"])

    def children(self) -> list["JobHandle"]:
        """Folds, cells of a study, or shards, in their order; those that were tried again, which have `superseded_by`,
        before those that took their place."""
        return [JobHandle(self.client, item) for item in self.client.get(f"jobs/{_part(self.id)}/children")["items"]]

    def events(self) -> list[dict[str, Any]]:
        """What happened to the job, in order."""
        return list(self.client.get(f"jobs/{_part(self.id)}/events")["items"])

    def artifacts(self) -> list[dict[str, Any]]:
        """Name, size, digest and media type of each file of the result."""
        return list(self.client.get(f"jobs/{_part(self.id)}/artifacts")["items"])

    def download(self, name: str, path: Path | str) -> Path:
        """Saves an artifact, checked against its digest. `path` is a file, or a folder that exists."""
        return self.client.download(self.id, name, Path(path))


class Client:
    """Talks to one service. Without arguments: `BGPANET_URL` and `BGPANET_TOKEN`, else those of the home."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        settings = Settings.load()
        url = url or settings.url or _read(settings.home / "url")
        token = token or settings.token or _read(settings.home / "token")
        if not url or not token:
            missing = "address" if not url else "token"
            raise ApiError(
                0, {"detail": f"no {missing} of a service: set BGPANET_URL and BGPANET_TOKEN, or start `bgpanet up`"}
            )
        if not token.isascii():
            raise ApiError(0, {"detail": "the token has letters that no token has; copy it again"})
        self.url = url.rstrip("/")
        self._bare = httpx.Client(timeout=httpx.Timeout(30, read=600))
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(30, read=600),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()
        self._bare.close()

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
        return JobHandle(self, self.post("jobs", body, {"Idempotency-Key": key}))

    def job(self, job_id: str) -> JobHandle:
        """One job."""
        return JobHandle(self, self.get(f"jobs/{_part(job_id)}"))

    def jobs(self, **filters: str) -> Iterator[JobHandle]:
        """Jobs without a parent, newest first; filters: state, kind, dataset, q."""
        for item in self._pages("jobs", filters):
            yield JobHandle(self, item)

    def download(self, job_id: str, name: str, path: Path) -> Path:
        """Saves an artifact, checked against its digest; see JobHandle.download."""
        where = f"jobs/{_part(job_id)}/artifacts"
        listed = {item["name"]: item for item in self.get(where)["items"]}
        if name not in listed:
            raise ApiError(
                404, {"detail": f"job {job_id} has no artifact {name!r}; it has: {', '.join(listed) or 'none'}"}
            )
        target = path / Path(name).name if path.is_dir() else path
        partial = target.with_name(f".{target.name}.part")
        if not target.parent.is_dir():
            raise ApiError(0, {"detail": f"{target.parent} is no folder; make it first"})
        digest = hashlib.sha256()
        try:
            with self._http.stream("GET", f"{where}/{_part(name)}", follow_redirects=True) as answer:
                if answer.is_error:
                    answer.read()
                    raise _error(answer)
                with partial.open("wb") as file:
                    for part in answer.iter_bytes():
                        digest.update(part)
                        file.write(part)
            if digest.hexdigest() != listed[name]["sha256"]:
                raise ApiError(0, {"detail": f"{name} arrived damaged; try again"})
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return partial.replace(target)

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
        made = self.post("datasets", body, {"Idempotency-Key": str(uuid.uuid4())})
        if not wait or made["state"] != "registering":
            return made
        try:
            self.job(made["job"]).wait(on_update=on_update, every=0.2)
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
        path = Path(path)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            upload = self.post("uploads", {"name": path.name, "size": path.stat().st_size, "sha256": sha256})
            there = set(upload["received"])
            for number in range(1, upload["parts"] + 1):
                if number not in there:
                    file.seek((number - 1) * upload["part_size"])
                    self._send_part(upload["id"], number, file.read(upload["part_size"]))
                if on_sent is not None:
                    on_sent(min(number * upload["part_size"], upload["size"]), upload["size"])
        return self.post(f"uploads/{upload['id']}/complete")

    def _send_part(self, upload_id: str, number: int, content: bytes) -> None:
        where = f"uploads/{_part(upload_id)}/parts/{number}"
        address = self.get(where)["address"]
        if address is None:
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            self._send("PUT", where, content=content, headers={"Content-Digest": f"sha-256=:{digest}:"})
        else:
            # To the store itself, which must not see our token.
            self._send("PUT", address, content=content, through=self._bare)

    def _refusal(self, dataset_id: str) -> ApiError:
        refused = self.dataset(dataset_id)
        errors = [{"field": finding["where"], "detail": finding["what"]} for finding in refused["findings"]]
        detail = f"{refused['name']} was refused" if errors else refused["error"]
        return ApiError(422, {"detail": detail, "errors": errors})

    def datasets(self) -> Iterator[dict[str, Any]]:
        """Data sets, newest first."""
        return self._pages("datasets", {})

    def dataset(self, name: str) -> dict[str, Any]:
        """One data set, by name (its newest version), `name@version` or id."""
        return self.get(f"datasets/{_part(name)}")

    def remove_dataset(self, name: str) -> None:
        """Deletes a data set's files; the rest is kept where jobs used it."""
        self.delete(f"datasets/{_part(name)}")

    def revoke_token(self, token_id: str) -> None:
        """Ends a token at once."""
        self.delete(f"tokens/{_part(token_id)}")

    def workers(self) -> list[dict[str, Any]]:
        """Worker slots."""
        return list(self.get("workers")["items"])

    def models(self) -> list[dict[str, Any]]:
        """Networks that can be trained."""
        return list(self.get("models")["items"])

    # ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """GET `path` under /api/v1. Raises ApiError."""
        return self._send("GET", path, params=query)

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """POST a JSON body. Raises ApiError."""
        return self._send("POST", path, json=body, headers=headers)

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PUT a JSON body. Raises ApiError."""
        return self._send("PUT", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PATCH with a JSON body. Raises ApiError."""
        return self._send("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE `path`. Raises ApiError."""
        self._send("DELETE", path)

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = self.get(path, {**query, **({"cursor": cursor} if cursor else {})})
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _send(self, method: str, path: str, through: httpx.Client | None = None, **arguments: Any) -> dict[str, Any]:
        """Every request here is safe to repeat: reads, and writes that carry a key or say the same twice."""
        for number in range(TRIES):
            last = number == TRIES - 1
            try:
                answer = (through or self._http).request(method, path, **arguments)
            except httpx.TransportError as error:
                if last:
                    detail = f"{self.url} does not answer ({error}); is the service up? `bgpanet up` starts one"
                    raise ApiError(0, {"detail": detail}) from None
            else:
                if answer.status_code not in (429, 502, 503, 504) or last:
                    break
            time.sleep(0.2 * 2**number)
        if answer.is_error:
            raise _error(answer)
        return dict(answer.json()) if answer.content else {}


def _part(text: str) -> str:
    """A name as one part of a path. Raises ApiError (404) where no name is like that, so it leads nowhere else."""
    if not NAME.fullmatch(text) or not text.strip("."):
        raise ApiError(404, {"detail": f"there is no {text!r}; a name has letters, digits, dots, dashes, underscores"})
    return text


def _error(answer: httpx.Response) -> ApiError:
    try:
        problem = answer.json()
    except ValueError:
        problem = {"detail": f"HTTP {answer.status_code} from {answer.url.host}"}
    return ApiError(answer.status_code, problem)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
