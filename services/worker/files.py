"""Files in and out of an attempt: data set, checkpoint, model and folds before; checkpoints and artifacts after.

What is stored has a key of its attempt and content (`jobs/<job>/<attempt>/<sha256>`), so no attempt overwrites or
deletes what another one stores, and nothing is visible before a row names it.
"""

import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from bgpanet.data.checks import FINGERPRINTS
from bgpanet.data.pack import IMAGES, INDEX
from bgpanet.events import ArtifactWritten, CheckpointWritten
from bgpanet.registration import LOCKED_FILES
from bgpanet.specs import limited_at_once, parse_spec
from services import sources
from services.artifacts import ArtifactStore, sha256_of
from services.claims import Claim, NewArtifact, StoredFile
from services.context import Context
from services.errors import ArtifactMissing, StaleAttempt, StorageError
from services.tables import SHARED, Artifact, Dataset, Job, ModelVersion, Upload
from services.telemetry import catalogue, metrics

MODEL_FILES = {
    "predict": ("model.safetensors", "model.json"),
    "evaluate": ("model.safetensors", "model.json", "split.json"),
    "explain": ("model.safetensors", "model.json"),
    "export": ("model.safetensors", "model.json"),
    "trial": ("model.safetensors", "model.json"),
}
"""What kinds of jobs that apply a trained model need of it."""
PARTS = {"cross_validate": "fold", "study": "cell", "predict": "shard"}
"""What the children of a job are called in the folder of the run that pools them."""


class Workbench:
    """The folder of one attempt: `spec.json` and `output/`, filled from the store by `prepare`.

    `say` hears how far fetching a source is, and may raise to end it; `warn` hears of checkpoints that are damaged.
    """

    def __init__(
        self,
        context: Context,
        claim: Claim,
        say: Callable[[str], None] = lambda message: None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.context, self.claim, self.say, self.warn = context, claim, say, warn
        self.folder = context.settings.scratch / f"{claim.lease.job_id}-{claim.lease.attempt}"
        self.output = self.folder / "output"
        self.spec = self.folder / "spec.json"
        self._fetched: dict[Path, StoredFile] = {}  # of the data set, which all attempts on this host share

    def prepare(self) -> None:
        """Fetches all that the child needs; clears what a dead attempt of the job left here. Raises StorageError."""
        for left in self.folder.parent.glob(f"{self.claim.lease.job_id}-*"):
            shutil.rmtree(left, ignore_errors=True)
        self.output.mkdir(parents=True, exist_ok=True)
        spec = self._spec()
        if self.claim.kind == "register":
            spec["data"] = {"format": spec["source"]["format"], "path": str(self._source(spec["source"]))}
            spec["others"] = self._fingerprints()
        elif self.claim.kind == "import":
            spec["source"] = str(self._source({"upload": spec["source"]}))
        elif self.claim.dataset_id is not None:
            part = str(spec.get("part", "open"))
            spec["data"] = {"format": "packed", "path": str(self._dataset(part)), "holds": part}
        if self.claim.kind == "trial":
            spec["images"] = [self._tried(image) for image in spec["images"]]
        self._checkpoint()
        part = PARTS.get(self.claim.kind, "part")
        for number, child in enumerate(self.claim.children):
            self._child(child, self.output / f"{part}-{number}")
        if self.claim.kind in MODEL_FILES:
            model = self.folder / "model"
            joins = self.claim.kind == "predict" and self.claim.children
            self._model(spec["model"], ("model.json",) if joins else MODEL_FILES[self.claim.kind], model)
            spec["model"] = str(model)
        self.spec.write_text(json.dumps(spec), encoding="utf-8")

    def _spec(self) -> dict[str, Any]:
        if self.claim.images_at_once is None:
            return dict(self.claim.spec)
        asked = parse_spec(self.claim.kind, self.claim.spec)
        return limited_at_once(asked, self.claim.images_at_once).model_dump(mode="json")

    def _source(self, source: Mapping[str, str]) -> Path:
        """Where the files lie that are to be registered: a folder, or an archive."""
        if source.get("folder") is not None:
            return Path(source["folder"])
        if source.get("s3") is not None:
            return sources.fetch(self.context.settings, source["s3"], self.folder / "source", self.say)
        with self.context.database.read() as session:
            upload = session.get(Upload, source["upload"])
        if upload is None or upload.state != "complete":
            raise StorageError(f"upload {source['upload']} is gone; send it again")
        archive = self.folder / "archive"
        _fetch(self.context.store, StoredFile(upload.key, upload.sha256, upload.size), archive)
        return archive

    def _tried(self, image: Mapping[str, str]) -> dict[str, str]:
        """An image of a trial, with the file where it lies: a copy, since it may be deleted any moment."""
        path = self.folder / "images" / image["name"]
        path.parent.mkdir(exist_ok=True)
        self.context.store.get_file(image["file"], path, image["sha256"])
        return {**image, "file": str(path)}

    def _fingerprints(self) -> dict[str, str]:
        """Files of fingerprints of the data sets that are ready, but for other versions of the same. Whoever sees this
        one reads what it has in common with others: they are those that all of them see."""
        with self.context.database.read() as session:
            own = session.scalars(select(Dataset).where(Dataset.id == self.claim.dataset_id)).one()
            query = select(Dataset, Artifact).join(Artifact, Artifact.job_id == Dataset.job_id)
            query = query.where(Dataset.project.in_((own.project, SHARED)), Artifact.name == FINGERPRINTS)
            is_other = (Dataset.name != own.name) | (Dataset.project != own.project)
            rows = session.execute(query.where(Dataset.state == "ready", is_other).order_by(Dataset.id)).all()
        found = {}
        for dataset, file in rows:
            path = self.folder / f"{dataset.id}-{FINGERPRINTS}"
            _fetch(self.context.store, StoredFile(file.key, file.sha256, file.size), path)
            place = "" if dataset.project == own.project else f"{dataset.project}/"
            found[f"{place}{dataset.name}@{dataset.version}"] = str(path)
        return found

    def _dataset(self, part: str) -> Path:
        """The folder of a data set's open or locked part. The other one's files are not fetched."""
        with self.context.database.read() as session:
            dataset = session.get(Dataset, self.claim.dataset_id)
        if dataset is None:
            raise StorageError(f"data set {self.claim.dataset_id} is gone")
        names = {name: inside for inside, name in LOCKED_FILES.items()} if part == "locked" else {}
        digest = dataset.locked["digest"] if part == "locked" else dataset.digest
        folder = self.context.settings.cache / "datasets" / digest
        folder.mkdir(parents=True, exist_ok=True)
        for name in (IMAGES, INDEX):
            if (file := dataset.files.get(names.get(name, name))) is None:
                continue
            self._fetched[folder / name] = StoredFile(**file)
            if not (folder / name).exists():
                _fetch(self.context.store, StoredFile(**file), folder / name)
        return folder

    def _checkpoint(self) -> None:
        """Puts the newest checkpoint that is whole where the child looks for its own; without one it begins anew."""
        for step, files in self.claim.checkpoints.items():
            partial = self.output / "checkpoints" / "fetched"
            partial.mkdir(parents=True)
            if self._is_whole(files, partial):
                manifest = json.loads((partial / "manifest.json").read_text(encoding="utf-8"))
                partial.rename(partial.with_name(Path(manifest["name"]).name))
                return
            self.warn(f"the checkpoint after step {step} is damaged in the store; it is not used")
            shutil.rmtree(partial)

    def _is_whole(self, files: Mapping[str, StoredFile], folder: Path) -> bool:
        """Fetches a checkpoint, and checks it even where it is a link. Raises StorageError: nothing is known of it."""
        try:
            for name, file in files.items():
                _fetch(self.context.store, file, folder / name, checked=False)
        except ArtifactMissing:
            return False
        return all(sha256_of(folder / name) == file.sha256 for name, file in files.items())

    def _model(self, job_id: str, names: tuple[str, ...], folder: Path) -> None:
        """The model of a training; those of a cross-validation's folds in `fold-0`, `fold-1`, …"""
        if self.claim.model_version_id is not None:
            self._version(self.claim.model_version_id, names, folder)
            return
        with self.context.database.read() as session:
            folds = select(Job.id).where(Job.parent_id == job_id, Job.superseded_by.is_(None)).order_by(Job.position)
            found = session.scalars(folds).all()
        for number, fold in enumerate(found):
            self._artifacts(fold, names, folder / f"fold-{number}")
        if not found:
            self._artifacts(job_id, names, folder)

    def _version(self, version_id: str, names: tuple[str, ...], folder: Path) -> None:
        """The same of a registered model, whatever became of the job that made it."""
        with self.context.database.read() as session:
            version = session.get(ModelVersion, version_id)
        if version is None or version.state != "ready":
            raise StorageError(f"version {version_id} of a model is gone")
        for name, file in version.files.items():
            if Path(name).name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _fetch(self.context.store, StoredFile(**file), folder / name)

    def _child(self, job_id: str, folder: Path) -> None:
        """What a child left: its result, or why it has none."""
        with self.context.database.read() as session:
            child = session.execute(select(Job.state, Job.reason, Job.error).where(Job.id == job_id)).one()
        if child.state == "succeeded" and self.claim.kind == "predict":
            self._artifacts(job_id, ("predictions.parquet",), folder)
            return
        if child.state == "succeeded":
            # Folds of older versions left no pictures, and a study shows none.
            wanted = ("gallery.json",) if self.claim.kind == "cross_validate" else ()
            self._artifacts(job_id, ("report.json", "predictions.parquet"), folder, wanted)
            return
        folder.mkdir(parents=True, exist_ok=True)
        why = {"reason": child.reason or child.state, "error": child.error or "it was not run to its end"}
        (folder / "failed.json").write_text(json.dumps(why), encoding="utf-8")

    def _artifacts(self, job_id: str, names: tuple[str, ...], folder: Path, wanted: tuple[str, ...] = ()) -> None:
        """Fetches `names`, and of those `wanted` what there is. Raises ArtifactMissing, StorageError."""
        folder.mkdir(parents=True, exist_ok=True)
        with self.context.database.read() as session:
            rows = session.scalars(
                select(Artifact).where(Artifact.job_id == job_id, Artifact.name.in_((*names, *wanted)))
            ).all()
        if missing := set(names) - {row.name for row in rows}:
            raise ArtifactMissing(f"job {job_id} has no {', '.join(sorted(missing))}")
        for row in rows:
            _fetch(self.context.store, StoredFile(row.key, row.sha256, row.size), folder / row.name)

    def distrust(self) -> None:
        """Has the next attempt fetch anew what of the data set is damaged. Other jobs may read the rest just now."""
        for path, stored in self._fetched.items():
            if path.exists() and sha256_of(path) != stored.sha256:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Deletes the folder; what counts is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _fetch(store: ArtifactStore, file: StoredFile, path: Path, checked: bool = True) -> None:
    """The file at `path`: a link where the store is a folder of this machine, else a copy checked by its digest."""
    local = store.local_path(file.key)
    if local is None:
        store.get_file(file.key, path, file.sha256 if checked else None)
    elif local.is_file():
        link = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        link.symlink_to(local)
        link.replace(path)  # at once, also for whoever reads it now
    else:
        raise ArtifactMissing(f"the store has no {file.key}")


class Uploader(threading.Thread):
    """Stores what the child wrote, beside its work.

    Of checkpoints only the newest counts: one that is overtaken while it waits is skipped. `record` is called once a
    checkpoint is stored whole, with its step, epoch and files. A checkpoint that could not be stored is told to
    `warn` and costs nothing but time after a later death; `uploaded` hears of the others, with the seconds and the
    step. Artifacts that could not be stored raise in `artifact`.

    What is the same in one checkpoint after the other, as the best weights are, is stored in two copies that they use
    in turn: were it one, a damaged bit of it would cost the newest checkpoint and the one before.
    """

    def __init__(
        self,
        store: ArtifactStore,
        claim: Claim,
        staging: Path,
        record: Callable[[CheckpointWritten, Mapping[str, StoredFile]], None],
        warn: Callable[[str], None],
        uploaded: Callable[[float, int], None] = lambda seconds, step: None,
    ) -> None:
        super().__init__(name=f"upload-{claim.lease.job_id[-8:]}", daemon=True)
        self._store, self._staging = store, staging
        self._job = f"jobs/{claim.lease.job_id}"
        self._prefix = f"{self._job}/{claim.lease.attempt}"
        self._record, self._warn, self._uploaded = record, warn, uploaded
        self._stored: set[str] = set()
        self._recorded = (-1, 1)  # step and copy of the last checkpoint
        self._waiting: list[tuple[Path, CheckpointWritten]] = []
        self._condition = threading.Condition()
        self._closing = False

    def checkpoint(self, event: CheckpointWritten) -> None:
        """Takes a checkpoint over. Its files are linked, so the child may drop its own."""
        staged = self._staging / Path(event.path).name
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        try:
            for file in Path(event.path).iterdir():
                (staged / file.name).hardlink_to(file)
        except FileNotFoundError:
            # The child is ahead and has dropped it; it has written newer ones.
            shutil.rmtree(staged, ignore_errors=True)
            return
        with self._condition:
            overtaken = [folder for folder, waiting in self._waiting if not waiting.kept]
            self._waiting = [*(each for each in self._waiting if each[1].kept), (staged, event)]
            self._condition.notify()
        for folder in overtaken:
            shutil.rmtree(folder)

    def artifact(self, event: ArtifactWritten) -> NewArtifact:
        """Stores one file of the result. Raises StorageError."""
        return NewArtifact(event.name, event.media_type, self._put(Path(event.path), media_type=event.media_type))

    def drop(self, keys: Sequence[str]) -> None:
        """Deletes files that no row names any more. One that stays costs space and nothing else."""
        for key in keys:
            try:
                self._store.delete(key)
                self._stored.discard(key)
            except StorageError as error:
                self._warn(f"a superseded file stays in the store: {error}")

    def keep_only(self, keys: Set[str]) -> None:
        """Deletes whatever else the job's attempts left in the store, also those that died."""
        try:
            self.drop([key for key in self._store.keys(f"{self._job}/") if key not in keys])
        except StorageError as error:
            self._warn(f"superseded files stay in the store: {error}")

    def close(self) -> None:
        """Waits until everything that was taken over is stored."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self.join()

    def run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._closing:
                    self._condition.wait()
                if not self._waiting:
                    return
                staged, event = self._waiting.pop(0)
            (step, copy), begun = self._recorded, time.monotonic()
            copy = copy if event.step == step else 1 - copy  # one of the same step takes its place
            try:
                files = {file.name: self._put(file, f"-{copy}") for file in sorted(staged.iterdir())}
                self._record(event, files)
                self._recorded = (event.step, copy)
                self._uploaded(time.monotonic() - begun, event.step)
            except (StorageError, OSError, SQLAlchemyError, StaleAttempt) as error:
                metrics.count(catalogue.UPLOADS_FAILED)
                self._warn(f"the checkpoint after step {event.step} was not stored: {error}")
            shutil.rmtree(staged, ignore_errors=True)

    def _put(self, path: Path, copy: str = "", media_type: str = "application/octet-stream") -> StoredFile:
        try:
            sha256, size = sha256_of(path), path.stat().st_size
        except OSError as error:
            raise StorageError(f"{path.name} cannot be read: {error}") from error
        file = StoredFile(f"{self._prefix}/{sha256}{copy}", sha256, size)
        if file.key not in self._stored:
            self._store.put_file(file.key, path, sha256, media_type)
            self._stored.add(file.key)
        return file
