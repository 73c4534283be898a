"""A run that asks less of its device at a time."""

from bgpanet.catalogue import MODELS
from bgpanet.specs.applying import ExplainSpec, InferenceSpec
from bgpanet.specs.learning import TrainSpec
from bgpanet.specs.reading import AnySpec


def half_at_once(spec: AnySpec) -> int | None:
    """Half the images that pass the device at once, for another try of a run that ran out of memory.

    None where it can't be less, or would be another run: one image, batch normalisation, a run that pools others.
    """
    if isinstance(spec, InferenceSpec | ExplainSpec):
        return spec.batch_size // 2 or None
    if isinstance(spec, TrainSpec) and not MODELS[spec.model.name].batch_norm:
        return spec.training.images_at_once // 2 or None
    return None


def limited_at_once(spec: AnySpec, images: int) -> AnySpec:
    """The same run with so many images at a time on the device; a training's effective batch stays."""
    if isinstance(spec, InferenceSpec | ExplainSpec):
        return spec.model_copy(update={"batch_size": images})
    if isinstance(spec, TrainSpec):
        return spec.model_copy(update={"training": spec.training.model_copy(update={"micro_batch_size": images})})
    return spec
