"""Registered models from a notebook: `Client().registry.register("lesions", job_id, alias="champion")`."""

import hashlib
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from services.client_errors import ArrivedDamaged, Invalid
from services.connection import KEY, Connection, path_part
from services.transfers import Seen, upload

LOOK_SECONDS = 0.3
MODEL_FILES = ("model.safetensors", "model.json")
DIGESTS = "SHA256SUMS"


class ModelRegistry:
    """What a service keeps of trained models. A reference is `NAME` (its newest version), `NAME@3` or `NAME@alias`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def register(self, name: str, job_id: str, *, alias: str | None = None, **more: str | None) -> dict[str, Any]:
        """Keeps the model of a finished training or cross-validation; more: note, project. Returns its version.

        Raises ApiError.
        """
        body = {"name": name, "job": job_id, "alias": alias, **more}
        given = {field: value for field, value in body.items() if value is not None}
        return self.connection.json("POST", "models", json=given, repeatable=True)

    def list(self, q: str | None = None) -> Iterator[dict[str, Any]]:
        """Registered models, newest first; q: with this text in their name."""
        cursor: str | None = None
        while True:
            asked = {"kind": "registered", "q": q, "cursor": cursor}
            query = {field: value for field, value in asked.items() if value is not None}
            page = self.connection.json("GET", "models", params=query)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def model(self, name: str) -> dict[str, Any]:
        """A model, and what its aliases stand for."""
        return self.connection.json("GET", f"models/{path_part(name)}")

    def versions(self, name: str) -> Sequence[dict[str, Any]]:
        """A model's versions, newest first, also those that were refused or removed."""
        found: Sequence[dict[str, Any]] = self.connection.json("GET", f"models/{path_part(name)}/versions")["items"]
        return found

    def version(self, reference: str) -> dict[str, Any]:
        """One version: card, figures, where it came from."""
        return self.connection.json("GET", self._version(reference))

    def point(self, name: str, alias: str, version: int, expected: int | None = None) -> dict[str, Any]:
        """Has an alias stand for a version; `expected`: only where it stood for that one, 0: for none."""
        body = {"version": version} | ({} if expected is None else {"expected": expected})
        return self.connection.json("PUT", f"models/{path_part(name)}/aliases/{path_part(alias)}", json=body)

    def drop(self, name: str, alias: str) -> None:
        """Forgets an alias."""
        self.connection.json("DELETE", f"models/{path_part(name)}/aliases/{path_part(alias)}")

    def remove(self, reference: str) -> None:
        """Deletes the files of one version, or of all where a name alone is given; the rest can still be shown."""
        where = self._version(reference) if "@" in reference else f"models/{path_part(reference)}"
        self.connection.json("DELETE", where)

    def export(self, reference: str, path: Path | str) -> Path:
        """Saves a version as a zip, checked against the digests inside. `path` is a file, or a folder that exists.

        Raises:
            ApiError: there is none, or it arrived damaged.
            OSError: it can't be written there.
        """
        path = Path(path)
        target = path / f"{reference.replace('@', '-')}.zip" if path.is_dir() else path
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            where = f"{self._version(reference)}/export"
            with self.connection.stream(where, None, {}) as answer, partial.open("wb") as file:
                for piece in answer.iter_bytes():
                    file.write(piece)
            _check(partial)
            return partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def export_onnx(self, reference: str, bound: float = 1e-4) -> dict[str, Any]:
        """Has a version written as ONNX. Returns the job, whose files are `model.onnx` and `onnx.json`."""
        return self.connection.json(
            "POST", f"{self._version(reference)}/export", json={"format": "onnx", "bound": bound}
        )

    def import_model(
        self,
        name: str,
        path: Path | str,
        *,
        wait: bool = True,
        on_sent: Seen | None = None,
        **more: str | None,
    ) -> dict[str, Any]:
        """Imports a zip (as `export` makes it) or a folder with `model.safetensors` and `model.json`, and waits until
        it was checked; more: note, project. Returns its version.

        Raises:
            ApiError: it was refused, with every problem (`status` 422).
            OSError: it can't be read.
        """
        path = Path(path)
        with tempfile.TemporaryDirectory() as folder:
            sent = upload(self.connection, _zipped(path, Path(folder)) if path.is_dir() else path, on_sent)
        body = {"name": name, "upload": sent["id"], **{field: value for field, value in more.items() if value}}
        made = self.connection.json("POST", "models", json=body, headers={KEY: str(uuid.uuid4())})
        where = f"models/{path_part(made['model_id'])}/versions/{path_part(made['id'])}"
        while wait and made["state"] == "importing":
            time.sleep(LOOK_SECONDS)
            made = self.connection.json("GET", where)
        if made["state"] == "refused":
            errors = [{"field": finding["where"], "detail": finding["what"]} for finding in made["findings"]]
            raise Invalid(422, {"detail": f"{name} was refused" if errors else made["error"], "errors": errors})
        return made

    def predict(
        self,
        reference: str,
        paths: Sequence[Path | str],
        *,
        overlays: bool = False,
        explained: str | None = None,
        timeout: int = 30,
    ) -> dict[str, Any]:
        """What a model says of up to 16 images. For research, no diagnosis. Raises ApiError, OSError."""
        files = [("images", (Path(path).name, Path(path).read_bytes())) for path in paths]
        query = {"overlays": str(overlays).lower(), "timeout": timeout} | (
            {"explained": explained} if explained else {}
        )
        where = f"models/{_reference(reference)}/predict"
        return self.connection.json("POST", where, params=query, files=files, repeatable=True)

    def _version(self, reference: str) -> str:
        name, at, which = reference.rpartition("@")
        if not at:
            name, which = reference, str(self.model(reference)["newest"] or 0)
        return f"models/{path_part(name)}/versions/{path_part(which)}"


def _reference(reference: str) -> str:
    name, at, which = reference.rpartition("@")
    return f"{path_part(name)}@{path_part(which)}" if at else path_part(reference)


def _zipped(folder: Path, into: Path) -> Path:
    """A zip of a model's files in a folder, or of its folds; whatever else lies there stays."""
    made = into / f"{folder.name or 'model'}.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.name in MODEL_FILES and file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return made


def _check(path: Path) -> None:
    """Raises ArrivedDamaged where a file of an export is not what its digest says."""
    try:
        with zipfile.ZipFile(path) as archive:
            lines = archive.read(DIGESTS).decode().splitlines()
            wrong = [
                name for sha256, name in (line.split("  ", 1) for line in lines) if _digest(archive, name) != sha256
            ]
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ArrivedDamaged(f"the model arrived damaged ({error}); try again") from None
    if wrong:
        raise ArrivedDamaged(f"{', '.join(wrong)} arrived damaged; try again")


def _digest(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
