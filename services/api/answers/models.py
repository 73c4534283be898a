"""Answers about networks, registered models and trials of them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from services.api.answers.base import OTHER_ID, SHA256, Answer, FileFacts, Id, Time
from services.api.answers.datasets import Finding


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
        description="figures with intervals, as its job reported them; of an imported one as its files tell, unchecked",
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
