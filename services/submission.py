"""From what a person asks for to a queued job: everything that can be known to be wrong is refused here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bgpanet.catalogue import MODELS, WEIGHTS_URL
from bgpanet.errors import InvalidInput, Problem
from bgpanet.specs import (
    AnySpec,
    AppliedSpec,
    CrossValidateSpec,
    EvaluateSpec,
    ExportSpec,
    ImportSpec,
    JobSpec,
    LearningSpec,
    OwnSpec,
    PredictSpec,
    RegisterSpec,
    ResourcesSpec,
    StudySpec,
    TrainSpec,
    TrialSpec,
    parse_spec,
)
from services import fleet, jobs, models, projects, queue, views
from services.audit import Act
from services.claims import Limits, NewJob
from services.context import Context
from services.errors import Conflict, Forbidden, NotFound
from services.fleet import Weights
from services.model_registry import SPLIT
from services.models import Chosen
from services.tables import Dataset
from services.telemetry import tracing
from services.tokens import Principal


@dataclass(frozen=True)
class Request:
    """What a person asks for."""

    kind: str
    dataset: str
    spec: Mapping[str, Any]
    project: str | None = None
    name: str | None = None
    priority: int = 0
    after: Sequence[str] = ()
    time_limit: int | None = None
    on_failure: str = "finish_rest"
    cloned_from: str | None = None
    idempotency_key: str | None = None


def limits(context: Context) -> Limits:
    """How many jobs may wait."""
    return Limits(context.settings.queued_per_user, context.settings.queued)


def submit(context: Context, principal: Principal, request: Request) -> tuple[dict[str, Any], bool]:
    """Queues a job and wakes workers. Returns the job as shown to people, and whether it is new.

    Raises:
        InvalidInput: with every problem of the request.
        Conflict: the idempotency key was used for another request.
        Busy: as many jobs wait as may.
    """
    new = _checked(context, principal, request)
    detail = {"kind": new.kind, "name": new.name, "dataset": new.dataset_id, "cloned_from": new.cloned_from}
    act = Act(principal, "job.submit", project=new.project, detail=detail)
    with tracing.span(f"submit {new.kind}", kind="producer"):
        also = projects.noted_in(context.database, act)
        job_id, created = jobs.submit(context.database, new, limits(context), also)
        tracing.mark(**{"bgpanet.job": job_id})
    if created:
        first = new.children[0] if new.children else new
        queue.publish(context.celery, first.resource_class, messages=max(1, len(new.children)))
    return views.get_job(context.database, principal, job_id), created


def check(context: Context, principal: Principal, request: Request) -> dict[str, Any]:
    """What `submit` would queue, as shown to people; nothing is stored. Whether there is room for it is not asked.

    Raises:
        InvalidInput: with every problem of the request.
    """
    new = _checked(context, principal, request)
    dataset = views.find_dataset(context.database, principal, str(new.dataset_id))
    return {
        "validate_only": True,
        "kind": new.kind,
        "name": new.name,
        "dataset": dataset.name,
        "dataset_id": dataset.id,
        "dataset_version": dataset.version,
        "project": new.project,
        "spec": new.spec,
        "priority": new.priority,
        "after": list(new.after),
        "time_limit": new.time_limit,
        "on_failure": new.on_failure,
        "children": len(new.children),
    }


def _checked(context: Context, principal: Principal, request: Request) -> NewJob:
    problems: list[Problem] = []
    spec: AnySpec | None = None
    dataset: Dataset | None = None
    chosen: Chosen | None = None
    try:
        spec = parse_spec(request.kind, request.spec)
    except InvalidInput as error:
        problems.extend(error.problems)
    try:
        dataset = views.find_dataset(context.database, principal, request.dataset)
    except NotFound as error:
        problems.append(Problem("dataset", str(error)))
    project = ""
    try:
        project = projects.chosen(context.database, principal, request.project)
    except (NotFound, Forbidden) as error:
        problems.append(Problem("project", str(error)))
    if dataset is not None and dataset.state not in ("ready", "registering"):
        why = dataset.error or "name another"
        problems.append(Problem("dataset", f"{request.dataset!r} was {dataset.state}: {why}"))
    problems.extend(_after_problems(context, principal, request.after))
    if spec is not None:
        if spec.data is not None:
            problems.append(Problem("spec.data", "is for the command line; here the data set is named in `dataset`"))
        if spec.resources.gpus > 1 and not isinstance(spec, LearningSpec):
            problems.append(Problem("spec.resources.gpus", f"must be 1: {request.kind} applies a model on one device"))
        problems.extend(_resource_problems(context, spec.resources))
        if isinstance(spec, ExportSpec | ImportSpec | TrialSpec):
            problems.append(Problem("kind", f"{request.kind} is asked for by POST /models"))
        elif isinstance(spec, AppliedSpec) and not models.JOB_ID.fullmatch(spec.model):
            try:
                chosen = models.choose(context.database, principal, spec.model)
                spec = spec.model_copy(update={"model": chosen.name})
                problems.extend(_version_problems(chosen, spec, dataset))
            except (NotFound, Conflict) as error:
                problems.append(Problem("spec.model", str(error)))
        elif isinstance(spec, AppliedSpec):
            problems.extend(_model_problems(context, principal, spec, dataset, request.after))
        elif isinstance(spec, RegisterSpec):
            problems.append(Problem("kind", "data sets are registered by POST /datasets"))
        elif dataset is not None:
            problems.extend(_learning_problems(context, spec, dataset))
    if problems or spec is None or dataset is None or isinstance(spec, OwnSpec):
        raise InvalidInput(problems)
    runs, request = _runs(context, spec, dataset), replace(request, project=project)
    new = _new_job(request, spec, dataset, principal, runs, context.settings.max_attempts)
    return new if chosen is None else _using(new, chosen)


def _using(new: NewJob, chosen: Chosen) -> NewJob:
    """The job and its children with the version that they use, whatever becomes of names meanwhile."""
    children = [replace(child, model_version_id=chosen.id) for child in new.children]
    return replace(new, model_version_id=chosen.id, children=children)


def _after_problems(context: Context, principal: Principal, after: Sequence[str]) -> list[Problem]:
    problems = []
    for number, job_id in enumerate(after):
        where = f"after.{number}"
        try:
            job = views.get_job(context.database, principal, job_id)
        except NotFound as error:
            problems.append(Problem(where, str(error)))
            continue
        if job["state"] in ("failed", "cancelled"):
            instead = job["superseded_by"] or "the job that tries it again"
            problems.append(Problem(where, f"job {job_id} is {job['state']}; retry it, and follow {instead}"))
    return problems


def name_of(kind: str, model: Any, dataset: str) -> str:
    """What a job is called that nobody gave a name. model: as in its spec, plain."""
    short = model[:8] if isinstance(model, str) and models.JOB_ID.fullmatch(model) else model
    return f"{kind.replace('_', ' ')} {short if isinstance(model, str) else model['name']} on {dataset}"


Run = tuple[str, TrainSpec | PredictSpec]  # its name, and what it does


def _new_job(
    request: Request, spec: JobSpec, dataset: Dataset, principal: Principal, runs: Sequence[Run], max_attempts: int
) -> NewJob:
    values = spec.model_dump(mode="json")
    new = NewJob(
        kind=request.kind,
        name=request.name or name_of(request.kind, values["model"], dataset.name),
        spec=values,
        dataset_id=dataset.id,
        created_by=principal.user,
        project=request.project,
        priority=request.priority,
        resource_class=spec.resources.resource_class,
        labels=spec.resources.labels,
        memory_gb=spec.resources.memory_gb,
        after=tuple(request.after),
        time_limit=request.time_limit,
        on_failure=request.on_failure,
        cloned_from=request.cloned_from,
        max_attempts=max_attempts,
        idempotency_key=request.idempotency_key,
    )
    if isinstance(spec, TrainSpec):
        new = replace(new, weights=_weights(spec))
    if not runs:
        return new
    # What pools their results computes next to nothing.
    return replace(new, resource_class=spec.resources.device, children=[_child(new, name, run) for name, run in runs])


def _runs(context: Context, spec: JobSpec, dataset: Dataset) -> list[Run]:
    """The runs that a job consists of, by name; none where it is one run itself. A data set that is still being
    registered is not cut into shards: how many images it has is not known yet."""
    if isinstance(spec, PredictSpec) and dataset.state == "ready":
        live = fleet.live(context.database, spec.resources.device)
        on_cpus = bool(live) and not any("gpu" in row.resource_classes for row in live)
        return [(f"shard {number}", shard) for number, shard in enumerate(spec.shards(dataset.images, on_cpus))]
    if isinstance(spec, CrossValidateSpec):
        return [(f"fold {fold}", spec.fold(fold)) for fold in range(spec.split.folds)]
    if isinstance(spec, StudySpec):
        return [(f"{cell.variant}, seed {cell.seed}, fold {cell.fold}", cell.spec) for cell in spec.cells()]
    return []


def _child(parent: NewJob, name: str, spec: TrainSpec | PredictSpec) -> NewJob:
    name = f"{parent.name[: 198 - len(name)]}, {name}"
    values = spec.model_dump(mode="json")
    child = replace(parent, name=name, spec=values, idempotency_key=None, after=())
    return replace(child, kind="train", weights=_weights(spec)) if isinstance(spec, TrainSpec) else child


def _weights(spec: LearningSpec) -> str | None:
    """The file of ImageNet weights that a training starts from."""
    return MODELS[spec.model.name].imagenet if spec.model.weights == "imagenet" else None


def _learning_problems(
    context: Context, spec: TrainSpec | CrossValidateSpec | StudySpec, dataset: Dataset
) -> list[Problem]:
    trainings = [cell.spec for cell in spec.cells()] if isinstance(spec, StudySpec) else [spec]
    problems = _weights_problems(context, trainings)
    if dataset.state != "ready":
        return problems  # its classes are known once it has been read
    labelled = [count for count in dataset.class_counts if count["images"]]
    if len(labelled) < 2:
        return [
            *problems,
            Problem("dataset", f"{dataset.name!r} has labels of fewer than two classes; learning needs them"),
        ]
    most = spec.subset.max_groups_per_class if spec.subset else None
    for count in labelled if spec.split.unit == "lesion" else []:
        groups = min(count["groups"], most) if most else count["groups"]
        # What the largest test part leaves of a class is cut once more, for validation.
        folds, left = spec.split.folds, groups - math.ceil(groups / spec.split.folds)
        if groups < folds or left < spec.split.validation_folds:
            needs = f"{folds} folds, each leaving {spec.split.validation_folds} for validation, need more"
            what = f"class {count['class']!r} would have {groups} {dataset.group_unit}s; {needs}"
            problems.append(Problem("spec.split", f"{what}: use fewer folds{' or a larger subset' if most else ''}"))
    return problems


def _weights_problems(context: Context, specs: Sequence[LearningSpec]) -> list[Problem]:
    """Weights that no worker could load which might take the job. Where no worker is there to be asked, it may wait for
    one that can: this host is not asked in its place, since it may be none of those that train."""
    where = "spec.model.weights"
    if any(spec.model.weights not in (None, "imagenet") for spec in specs):
        return [Problem(where, 'must be null or "imagenet"; files are for the command line')]
    needed = sorted({file for spec in specs if (file := _weights(spec))})
    workers = fleet.live(context.database, specs[0].resources.resource_class) if needed else []
    known = {f"{row.name} on {row.host}": Weights(**row.weights) for row in workers}
    folders = " or ".join(sorted({weights.folder for weights in known.values()}))
    asked = f"no worker that could take the job has it or reaches {WEIGHTS_URL} (asked: {', '.join(known)})"
    return [
        Problem(where, f"{file} is missing: {asked}; put the file into {folders} there, or use null")
        for file in needed
        if known and not any(file in weights.obtainable for weights in known.values())
    ]


def _resource_problems(context: Context, wanted: ResourcesSpec) -> list[Problem]:
    """GPUs, labels and memory that no worker has. Where no worker is there to be asked, the job may wait for one."""
    if not wanted.labels and wanted.memory_gb is None and wanted.gpus == 1:
        return []
    rows = fleet.live(context.database, wanted.resource_class)
    if not rows and wanted.gpus > 1 and fleet.live(context.database, "any"):
        what = f"no worker that is there has a slot of {wanted.gpus} GPUs; start one with --gpus-per-slot {wanted.gpus}"
        return [Problem("spec.resources.gpus", what)]
    offers = [fleet.offer(row) for row in rows]
    least = wanted.memory_gb or 0.0
    if not rows or any(offer.labels.issuperset(wanted.labels) and offer.memory_gb >= least for offer in offers):
        return []
    known = "; ".join(f"{row.name} has {_told(row.labels, row.memory_gb)}" for row in rows)
    where = "spec.resources." + ("labels" if wanted.labels else "memory_gb")
    return [Problem(where, f"no worker that is there has {_told(wanted.labels, wanted.memory_gb)}; {known}")]


def _told(labels: Sequence[str], memory_gb: float | None) -> str:
    return ", ".join([*labels, *([] if memory_gb is None else [f"{memory_gb:.4g} GB"])]) or "no labels"


def _model_problems(
    context: Context, principal: Principal, spec: AppliedSpec, dataset: Dataset | None, after: Sequence[str]
) -> list[Problem]:
    try:
        job = views.get_job(context.database, principal, spec.model)
    except NotFound as error:
        return [Problem("spec.model", str(error))]
    whole = isinstance(spec, PredictSpec) and job["kind"] == "cross_validate"  # all its folds answer together
    if job["kind"] != "train" and not whole:
        return [Problem("spec.model", f"job {spec.model} is a {job['kind']}; name a training, or a fold of this one")]
    if problems := _shard_problems(spec, dataset):
        return problems
    if job["state"] != "succeeded" and spec.model not in after:
        so = "" if job["state"] in ("failed", "cancelled") else "; name it in `after`, too, to wait for it"
        told = f"job {spec.model} is {job['state']}; only one that succeeded has a model{so}"
        return [Problem("spec.model", told)]
    if isinstance(spec, EvaluateSpec) and dataset is not None and dataset.state == "ready":
        known = job["summary"].get("classes", []) if job["state"] == "succeeded" else None
        return _evaluation_problems(known, dataset, spec.part)
    return []


def _version_problems(chosen: Chosen, spec: AppliedSpec, dataset: Dataset | None) -> list[Problem]:
    """What keeps a registered model from being used so."""
    if chosen.members > 1 and not isinstance(spec, PredictSpec):
        what = f"{chosen.name} is {chosen.members} models that answer together; only predict takes it"
        return [Problem("spec.model", f"{what}; name one of a single training")]
    if problems := _shard_problems(spec, dataset):
        return problems
    if isinstance(spec, EvaluateSpec):
        if SPLIT not in chosen.files:
            what = f"{chosen.name} was imported, so which images it has seen is unknown, and figures may be too good"
            return [Problem("spec.model", f"{what}; predict, or evaluate a model that was trained here")]
        if dataset is not None and dataset.state == "ready":
            return _evaluation_problems([*chosen.card.get("classes", [])], dataset, spec.part)
    return []


def _shard_problems(spec: AppliedSpec, dataset: Dataset | None) -> list[Problem]:
    if isinstance(spec, PredictSpec) and spec.shard is not None and dataset is not None and dataset.state == "ready":
        last = spec.shard.first + spec.shard.count
        if last > dataset.images:
            return [Problem("spec.shard", f"ends at {last}; {dataset.name!r} has {dataset.images} images")]
    return []


def _evaluation_problems(known: Sequence[str] | None, dataset: Dataset, part: str) -> list[Problem]:
    """What can be known of it now. known: the model's classes; None: its training has not ended."""
    if part == "locked" and not dataset.locked:
        return [Problem("spec.part", f"{dataset.name!r} has no locked part; that is cut when a data set is registered")]
    labelled = [count["class"] for count in dataset.class_counts if count["images"]]
    if not labelled:
        return [Problem("dataset", f"{dataset.name!r} has no labels, so there is nothing to compare answers with")]
    if known is None:
        return []
    if strange := [name for name in labelled if name not in known]:
        told = f"{dataset.name!r} has classes that the model does not know: {', '.join(strange)}"
        return [Problem("dataset", f"{told}; it knows {', '.join(known)}")]
    return []
