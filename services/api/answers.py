"""Answers out: what every route's JSON looks like, field by field. Tests hold each real answer equal to its model."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from bgpanet.specs import Kind
from services.claims import Reason, State
from services.tokens import Role, Scope

AnyKind = Literal[Kind, "register", "export", "import"]
DatasetState = Literal["registering", "ready", "refused", "duplicate", "removed"]
ID = "019b2f6c-5a1e-7c3d-9f00-4b6a1e2d3c4f"
OTHER_ID = "019b2f6c-0b52-7d11-8a3e-90d1c5f7e6a2"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
Id = Annotated[str, Field(description="UUIDv7", examples=[ID])]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", examples=[SHA256])]
Time = Annotated[datetime, Field(description="RFC 3339, UTC", examples=["2026-03-01T09:30:00.000Z"])]


class Answer(BaseModel):
    """Base of all answers. Tests refuse fields that are not told here; clients must not, later versions add some."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, json_schema_extra=lambda schema: schema.pop("additionalProperties", 0)
    )


ItemT = TypeVar("ItemT")


class Page(Answer, Generic[ItemT]):
    """A part of a list."""

    items: list[ItemT]
    next_cursor: str | None = Field(description="`cursor` of the request for what follows; null at the end")


class WrongField(Answer):
    """One thing that is wrong with a request."""

    field: str = Field(description="where; empty: the request as a whole", examples=["spec.training.epochs"])
    detail: str = Field(description="what, and what to do", examples=["Input should be greater than or equal to 1"])


class Problem(Answer):
    """A problem document (RFC 9457)."""

    type: Literal["about:blank"]
    title: str = Field(examples=["The request is wrong"])
    status: int = Field(examples=[422])
    request_id: str = Field(
        examples=["0193a1f2b7c04e5d"], description="names this request in the server's log; also in `X-Request-ID`"
    )
    detail: str | None = Field(None, examples=["1 problem(s)"])
    errors: list[WrongField] | None = Field(None, description="every wrong field")


# ── Jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Progress(Answer):
    """How far a job is."""

    fraction: float = Field(description="from 0 to 1", examples=[0.41])
    step: int | None = Field(examples=[740])
    steps: int | None = Field(examples=[1800])
    epoch: int | None = Field(examples=[75])
    epochs: int | None = Field(examples=[180])
    eta_seconds: float | None = Field(description="time left; null: not known", examples=[5400.0])
    message: str = Field(examples=["loss 0.412"])


class Children(Answer):
    """How many children are in each state."""

    queued: int = Field(examples=[2])
    running: int = Field(examples=[2])
    paused: int = Field(examples=[0])
    succeeded: int = Field(examples=[1])
    failed: int = Field(examples=[0])
    cancelled: int = Field(examples=[0])


class ListedJob(Answer):
    """A job in a list."""

    id: Id
    kind: AnyKind
    name: str = Field(examples=["train bgpanet on ham10000"])
    state: State = Field(examples=["running"])
    reason: Reason | None = Field(description="why it failed", examples=[None])
    error: str | None = Field(description="the same in words", examples=[None])
    project: str = Field(description="that it belongs to; ~user: a user's own", examples=["~ada"])
    dataset: str | None = Field(description="the data set's name; null: it needs none", examples=["ham10000"])
    spec: dict[str, Any] = Field(
        description="as it runs, defaults filled in", examples=[{"model": {"name": "bgpanet"}, "training": {}}]
    )
    priority: int = Field(examples=[0])
    attempt: int = Field(description="number of the latest one; 0 before the first", examples=[1])
    max_attempts: int = Field(
        description="that may be lost in a row without a new checkpoint before it fails", examples=[3]
    )
    time_limit: int | None = Field(description="seconds of work; null: none", examples=[None])
    memory_gb: float | None = Field(description="of the device, at least, 10^9 bytes", examples=[None])
    on_failure: Literal["finish_rest", "fail_fast"] | None = Field(
        description="what becomes of the other children when one fails; null: it has none", examples=[None]
    )
    superseded_by: str | None = Field(description="the job that tries it again", examples=[None])
    cloned_from: str | None = Field(examples=[None])
    progress: Progress
    summary: dict[str, Any] = Field(description="figures of a job that succeeded", examples=[{}])
    parent: str | None = Field(examples=[None])
    position: int | None = Field(description="among its parent's children, from 0", examples=[None])
    children: Children | None = Field(examples=[None])
    worker: str | None = Field(description="that has it now", examples=["gpu-1/0"])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    started_at: Time | None
    finished_at: Time | None = Field(examples=[None])
    dataset_id: str | None = Field(examples=[OTHER_ID])
    dataset_version: int | None = Field(description="null until the data set is ready", examples=[1])
    model_version_id: str | None = Field(description="of the registered model that it uses", examples=[None])


class SubmittedJob(ListedJob):
    """A job that was made or made before."""

    after: list[str] = Field(description="ids of jobs that have to succeed first", examples=[[]])
    labels: list[str] = Field(description="that its worker must have", examples=[[]])
    retry_of: str | None = Field(description="the job that it tries again", examples=[None])


class Queue(Answer):
    """What a waiting job waits for."""

    position: int | None = Field(description="from 1; null: it is not in the queue yet", examples=[3])
    starts_in_seconds: float | None = Field(description="about; null: not known", examples=[840.0])
    waits_for: list[str] = Field(examples=[["data set ham10000 is being registered (40 % done)"]])


class Job(SubmittedJob):
    """A job."""

    queue: Queue | None = Field(description="null: it does not wait", examples=[None])


class CheckedJob(Answer):
    """A request that would be accepted; nothing of it was stored."""

    validate_only: Literal[True]
    kind: Kind
    name: str = Field(examples=["train bgpanet on ham10000"])
    dataset: str = Field(examples=["ham10000"])
    dataset_id: Id
    dataset_version: int | None = Field(examples=[1])
    project: str = Field(description="that it belongs to; ~user: a user's own", examples=["~ada"])
    spec: dict[str, Any] = Field(
        description="as it would run, defaults filled in",
        examples=[{"model": {"name": "bgpanet"}, "training": {"epochs": 180}}],
    )
    priority: int = Field(examples=[0])
    after: list[str] = Field(examples=[[]])
    time_limit: int | None = Field(examples=[None])
    on_failure: Literal["finish_rest", "fail_fast"]
    children: int = Field(description="jobs of which it would consist; 0: it is one run", examples=[0])


class Point(Answer):
    """A figure at a step."""

    step: int = Field(examples=[300])
    epoch: int = Field(examples=[30])
    value: float = Field(examples=[0.412])


class Series(Answer):
    """One figure in the order of steps."""

    name: str = Field(examples=["validation.loss"])
    points: list[Point]


class LogLine(Answer):
    """A line that a job's run printed."""

    id: int = Field(examples=[17])
    attempt: int = Field(examples=[1])
    at: Time
    level: str = Field(examples=["info"])
    message: str = Field(examples=["epoch 30: validation loss 0.412"])


class Event(Answer):
    """Something that happened to a job."""

    id: int = Field(examples=[4])
    at: Time
    attempt: int = Field(examples=[1])
    state: State = Field(examples=["running"])
    detail: str = Field(examples=["claimed by gpu-1/0"])


class Attempt(Answer):
    """One try of a job by one worker."""

    number: int = Field(examples=[1])
    worker: str = Field(examples=["gpu-1/0"])
    started_at: Time
    ended_at: Time | None
    outcome: str | None = Field(examples=["succeeded"])
    resumed_from_step: int | None = Field(examples=[None])
    images_at_once: int | None = Field(description="on the device; null: as the spec says", examples=[None])
    version: str | None = Field(description="the worker's", examples=["0.1.0"])


class FileFacts(Answer):
    """A file's content."""

    sha256: Sha256
    size: int = Field(description="bytes", examples=[5_242_880])


class Checkpoint(Answer):
    """A complete checkpoint."""

    step: int = Field(examples=[300])
    epoch: int = Field(examples=[30])
    attempt: int = Field(examples=[1])
    created_at: Time
    files: dict[str, FileFacts] = Field(
        description="by name", examples=[{"model.safetensors": {"sha256": SHA256, "size": 5_242_880}}]
    )


class Artifact(Answer):
    """A file of a job's result."""

    name: str = Field(examples=["predictions.csv"])
    media_type: str = Field(examples=["text/csv"])
    size: int = Field(description="bytes", examples=[81_920])
    sha256: Sha256
    created_at: Time


# ── Data sets ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ClassCount(Answer):
    """How much there is of a class."""

    class_: str = Field(alias="class", examples=["mel"])
    images: int = Field(examples=[1113])
    groups: int = Field(examples=[614])


class Finding(Answer):
    """Something that a check found."""

    level: Literal["refused", "excluded", "warned"] = Field(examples=["warned"])
    where: str = Field(examples=["ISIC_0034320.jpg"])
    what: str = Field(examples=["is byte-identical to ISIC_0024306.jpg"])
    rows: list[str] = Field([], description="ids of images concerned, the first of `count`", examples=[[]])
    count: int = Field(0, examples=[1])


class LockedPart(Answer):
    """The part of a data set that no training sees."""

    share: float = Field(examples=[0.2])
    seed: int = Field(examples=[0])
    digest: Sha256
    images: int = Field(examples=[2003])
    groups: int = Field(examples=[1494])
    class_counts: list[ClassCount]


class ListedDataset(Answer):
    """A data set in a list. What is not known before it has been read is null until then."""

    id: Id
    project: str = Field(description="that it belongs to; ~user: a user's own", examples=["~ada"])
    name: str = Field(examples=["ham10000"])
    version: int | None = Field(examples=[1])
    state: DatasetState = Field(examples=["ready"])
    job: str | None = Field(description="that registers it", examples=[OTHER_ID])
    progress: Progress | None = Field(description="while it is being registered", examples=[None])
    error: str | None = Field(examples=[None])
    format: str = Field(examples=["ham10000"])
    digest: str | None = Field(description="of its content", examples=[SHA256])
    synthetic: bool = Field(description="it was drawn, and shows no person's skin", examples=[False])
    classes: list[str] = Field(examples=[["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]])
    images: int | None = Field(examples=[10015])
    groups: int | None = Field(examples=[7470])
    group_unit: str | None = Field(examples=["lesion"])
    class_counts: list[ClassCount]
    columns: list[str] = Field(description="what else is known of images", examples=[["age", "sex", "site"]])
    licence: str | None = Field(examples=["CC BY-NC 4.0"])
    citation: str | None = Field(examples=["Tschandl et al., Scientific Data 5, 2018"])
    locked: LockedPart | None = Field(examples=[None])
    bytes: int = Field(examples=[2_870_000_000])
    findings: list[Finding]
    checks: dict[str, Any] = Field(examples=[{"images": 10015, "missing": 0, "unreadable": 0}])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    ready_at: Time | None
    removed_by: str | None = Field(examples=[None])
    removed_at: Time | None = Field(examples=[None])


class LockedUse(Answer):
    """An evaluation on the locked part."""

    job: Id
    model: str = Field(examples=[OTHER_ID])
    state: State = Field(examples=["succeeded"])
    by: str = Field(examples=["ada"])
    at: Time


class Dataset(ListedDataset):
    """A data set."""

    locked_uses: list[LockedUse] | None = Field(description="null: it has no locked part", examples=[None])


class Upload(Answer):
    """A file that is sent in parts."""

    id: Id
    project: str = Field(description="that it belongs to; ~user: a user's own", examples=["~ada"])
    name: str = Field(examples=["ham10000.zip"])
    size: int = Field(description="bytes", examples=[2_870_000_000])
    sha256: Sha256
    state: Literal["open", "complete"]
    part_size: int = Field(description="bytes of every part but the last", examples=[16_777_216])
    parts: int = Field(examples=[172])
    received: list[int] = Field(description="numbers of the parts that are there", examples=[[1, 2, 3]])
    dataset: str | None = Field(description="registered from it last", examples=[None])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    expires_at: Time


class PartAddress(Answer):
    """Where a part is to be sent by PUT."""

    number: int = Field(examples=[1])
    size: int = Field(description="bytes", examples=[16_777_216])
    address: str | None = Field(description="null: here", examples=[None])


# ── Models ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Network(Answer):
    """A network that can be trained."""

    kind: Literal["network"]
    id: str = Field(examples=["bgpanet"])
    title: str = Field(examples=["BGPANet on Swin-B"])
    image_size: int = Field(description="side of the square input that it is meant for, pixels", examples=[224])
    parameters: float = Field(description="that learn, millions", examples=[88.32])
    gmac: float = Field(description="multiply-adds for one image, billions", examples=[15.662])
    options: list[str] = Field(description="of `spec.model`", examples=[["placement", "window_size"]])
    sizes: list[int] = Field(description="least and most side of the input, pixels", examples=[[32, 1024]])
    imagenet: str | None = Field(description="file of its ImageNet weights", examples=["swin_b-68c6b09e.pth"])
    batch_norm: bool = Field(examples=[False])


class RegisteredModel(Answer):
    """A name under which trained models are kept."""

    kind: Literal["registered"]
    id: Id
    name: str = Field(examples=["lesions"])
    project: str = Field(description="that it belongs to", examples=["~ada"])
    versions: int = Field(description="that are ready", examples=[2])
    newest: int | None = Field(description="for which the name alone stands; null: none is ready", examples=[2])
    aliases: dict[str, int] = Field(description="version for which each stands", examples=[{"champion": 1}])
    created_by: str = Field(examples=["ada"])
    created_at: Time


class ModelPage(Answer):
    """A part of the list of models."""

    items: list[Annotated[Network | RegisteredModel, Field(discriminator="kind")]]
    next_cursor: str | None = Field(description="`cursor` of the request for what follows; null at the end")


class ModelVersion(Answer):
    """A trained model, or those of a cross-validation's folds, which answer together."""

    id: Id
    model: str = Field(description="its model's name", examples=["lesions"])
    model_id: Id
    project: str = Field(description="that its model belongs to", examples=["~ada"])
    version: int | None = Field(description="null until it is ready", examples=[1])
    aliases: list[str] = Field(description="that stand for it", examples=[["champion"]])
    state: Literal["importing", "ready", "refused", "duplicate", "removed"] = Field(examples=["ready"])
    source: Literal["trained", "imported"] = Field(examples=["trained"])
    job: str = Field(description="that made it, or imports it", examples=[OTHER_ID])
    error: str | None = Field(description="why it was refused", examples=[None])
    findings: list[Finding]
    note: str | None = Field(examples=[None])
    digest: str | None = Field(description="of weights and specs", examples=[SHA256])
    members: int = Field(description="models that answer together", examples=[1])
    card: dict[str, Any] = Field(
        description="its model.json: network, classes, size of image, digests",
        examples=[{"model": {"name": "bgpanet"}, "classes": ["mel", "nv"], "image_size": 224}],
    )
    metrics: dict[str, Any] = Field(
        description="figures with intervals, as its job reported them",
        examples=[{"figures": {"balanced_accuracy": 0.81}, "intervals": {"balanced_accuracy": [0.77, 0.85]}}],
    )
    provenance: dict[str, Any] = Field(
        description="job, data set, split, code", examples=[{"job": OTHER_ID, "dataset": "ham10000", "code": "0.1.0"}]
    )
    files: dict[str, FileFacts] = Field(
        description="by name", examples=[{"model.safetensors": {"sha256": SHA256, "size": 5_242_880}}]
    )
    intended_use: str = Field(examples=["For research, no diagnosis."])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    ready_at: Time | None
    removed_by: str | None = Field(examples=[None])
    removed_at: Time | None = Field(examples=[None])


class TriedImage(Answer):
    """What a model says of an image, or why it says nothing."""

    name: str = Field(description="of the file that was sent", examples=["one.jpg"])
    error: str | None = Field(examples=[None])
    predicted: str | None = Field(description="the class with the largest probability", examples=["nv"])
    probabilities: dict[str, float] | None = Field(examples=[{"mel": 0.1, "nv": 0.9}])
    disagreement: float | None = Field(description="of several models that answer together, nats", examples=[None])
    explained: str | None = Field(description="the class that the overlay is of", examples=[None])
    overlay: str | None = Field(description="a data URI: Grad-CAM over the image, PNG", examples=[None])


class Trial(Answer):
    """What a model says of some images."""

    model: str = Field(description="the version that answered", examples=["lesions@1"])
    model_version_id: Id
    classes: list[str] = Field(examples=[["mel", "nv"]])
    members: int = Field(description="models that answered together", examples=[1])
    synthetic: bool = Field(description="it was trained on drawn images: its answers mean nothing", examples=[False])
    images: list[TriedImage] = Field(description="in the order in which they were sent")
    intended_use: str = Field(examples=["For research, no diagnosis."])


# ── Everything else ───────────────────────────────────────────────────────────────────────────────────────────────


class Me(Answer):
    """Whose token it is, and what it may."""

    user: str = Field(examples=["ada"])
    role: Role
    scopes: list[Scope] = Field(examples=[["read", "submit"]])
    token_id: str | None = Field(examples=[ID])
    expires_at: Time | None = Field(description="null: when it is revoked")
    project: str = Field(description="the user's own, where things go that name none", examples=["~ada"])


class Weights(Answer):
    """Which ImageNet weights a worker can have."""

    folder: str = Field("", examples=["/var/lib/bgpanet/torch/checkpoints"])
    files: list[str] = Field([], examples=[["swin_b-68c6b09e.pth"]])
    reachable: bool | None = Field(None, description="whether it can download them; null: not known", examples=[True])


class Worker(Answer):
    """A worker slot."""

    name: str = Field(examples=["gpu-1/0"])
    worker: str = Field(description="the process that it belongs to, with its other slots", examples=["gpu-1"])
    host: str = Field(examples=["gpu-1"])
    pid: int = Field(examples=[4711])
    version: str = Field(examples=["0.1.0"])
    device: str = Field(examples=["NVIDIA H100 80GB HBM3"])
    resource_classes: list[str] = Field(examples=[["any", "gpu"]])
    labels: list[str] = Field(examples=[["room=2"]])
    memory_gb: float | None = Field(description="of its device, 10^9 bytes", examples=[85.5])
    state: Literal["idle", "busy", "checking", "unfit", "draining", "lost"]
    why: str | None = Field(description="it takes no jobs", examples=[None])
    job: str | None = Field(examples=[None])
    figures: dict[str, Any] = Field(description="of host and device", examples=[{}])
    weights: Weights
    started_at: Time
    seen_at: Time


class Token(Answer):
    """A token, without its secret."""

    id: Id
    name: str = Field(examples=["notebook"])
    user: str = Field(examples=["ada"])
    role: Role
    scopes: list[Scope] = Field(description="what it may of what its role may", examples=[["read", "submit"]])
    created_at: Time
    expires_at: Time | None = Field(description="null: it holds until it is revoked")
    last_used_at: Time | None = Field(description="to the minute; null: never")
    revoked_at: Time | None = Field(examples=[None])


class NewToken(Token):
    """A token that was made."""

    token: str = Field(description="the secret; it is shown this once", examples=["bgp_5n8Zc…"])


# ── Webhooks ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Webhook(Answer):
    """An address that is told when jobs end."""

    id: Id
    url: str = Field(examples=["https://lab.example.org/hooks/bgpanet"])
    states: list[Literal["succeeded", "failed", "cancelled"]] = Field(
        description="the ends that it hears of", examples=[["succeeded", "failed"]]
    )
    children: bool = Field(description="also of jobs that have a parent", examples=[False])
    everyone: bool = Field(description="of the jobs of all users", examples=[False])
    created_by: str = Field(examples=["ada"])
    created_at: Time


class NewWebhook(Webhook):
    """A webhook that was made."""

    secret: str = Field(description="signs what it is told; it is shown this once", examples=["whsec_MfKQ9r8G…"])


class EndedJob(Answer):
    """A job, as a webhook is told of its end."""

    id: Id
    kind: AnyKind
    name: str = Field(examples=["train bgpanet on ham10000"])
    state: Literal["succeeded", "failed", "cancelled"] = Field(examples=["succeeded"])
    reason: Reason | None = Field(examples=[None])
    error: str | None = Field(examples=[None])
    dataset: str = Field(examples=["ham10000"])
    parent: str | None = Field(examples=[None])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    started_at: Time | None
    finished_at: Time


class Content(Answer):
    """What a webhook is told: the JSON that is sent to it."""

    id: Id
    event: Literal["job.succeeded", "job.failed", "job.cancelled", "ping"] = Field(examples=["job.succeeded"])
    at: Time
    job: EndedJob | None = Field(None, description="absent from a ping")


class Delivery(Answer):
    """Something that a webhook was told, or is yet to be told."""

    id: Id
    webhook: Id
    event: str = Field(examples=["job.succeeded"])
    job: str | None = Field(examples=[OTHER_ID])
    state: Literal["waiting", "delivered", "given_up"] = Field(examples=["delivered"])
    tries: int = Field(description="so far", examples=[1])
    status: int | None = Field(description="of the last answer; null: there was none", examples=[200])
    error: str | None = Field(description="what was wrong with the last try", examples=[None])
    created_at: Time
    next_at: Time | None = Field(description="when it is tried again", examples=[None])
    ended_at: Time | None
    content: Content


class Project(Answer):
    """What several people share."""

    id: str = Field(examples=["derma"])
    title: str = Field(examples=["Dermoscopy study"])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    role: Role | None = Field(description="one's own in it; null: an admin of the service who is no member")


class Member(Answer):
    """Somebody in a project."""

    user: str = Field(examples=["bob"])
    role: Role
    added_by: str = Field(examples=["ada"])
    added_at: Time


class AuditEntry(Answer):
    """Something that somebody did, or was refused."""

    number: int = Field(description="1, 2, … without gaps", examples=[42])
    at: Time
    user: str = Field(examples=["ada"])
    token_id: str | None = Field(examples=[ID])
    action: str = Field(examples=["job.submit"])
    subject: str = Field(description="id of what it was done to", examples=[OTHER_ID])
    project: str | None = Field(examples=["derma"])
    outcome: Literal["done", "refused"]
    detail: dict[str, Any] = Field(examples=[{"kind": "train"}])
    digest: Sha256
