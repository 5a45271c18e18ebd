"""How many entries a recording will have, and how large they are, told from its settings without training: no torch.

`plan` measures the rest, what an entry costs, by recording some steps; both count the entries here. Bytes are those of
the arrays of the run format before compression, for the layers, groups and parameters of the model.
"""

from math import prod
from typing import NamedTuple

from .format import ARRAYS
from .schedule import compile_schedule, count_due
from .settings import RunSettings

CHANNELS: tuple[str, ...] = ("step", "products", "probe", "curvature", "per_sample", "window", "snapshot", "evaluation")
_BYTES = {"f8": 8, "i8": 8, "f4": 4, "u4": 4}
_OF_SGD = {"velocity_squared", "velocity_dot_gradient", "parameter_dot_velocity", "sgd_time"}
_CHUNKS = {"chunk_noise_trace", "chunk_count"}
# Of what steps leave out; of snapshots either the parameters or, as here, their code; once in a run.
_NOT_WRITTEN = {"skipped", "layer_skipped", "parameters", "initial_parameters", "final_parameters"}
_SHAPES = {
    "fashion-mnist-10k": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
}


class Size(NamedTuple):
    """What the bytes of a recording depend on."""

    parameters: int
    layers: int
    groups: int


def planned_entries(settings: RunSettings) -> dict[str, int]:
    """Entries of each channel, if the model and optimizer have it, and no budget leaves any out."""
    recorder, window = settings.recorder, settings.recorder.moments_window
    return {
        "step": settings.steps,
        "products": count_due(recorder.products_every, settings.steps),
        "probe": count_due(recorder.probe_every, settings.steps),
        "curvature": count_due(recorder.curvature_every, settings.steps),
        "per_sample": count_due(recorder.per_sample_every, settings.steps),
        "window": -(-settings.steps // window) if window else 0,
        "snapshot": count_due(recorder.snapshot_every, settings.steps),
        "evaluation": _evaluations(settings),
    }


def _evaluations(settings: RunSettings) -> int:
    """Before the first step, after those that are due, and after the last."""
    due, steps = compile_schedule(settings.evaluate_every), settings.steps
    return 1 + count_due(settings.evaluate_every, steps + 1) - due(0) + (not due(steps))


def entry_bytes(settings: RunSettings, size: Size) -> dict[str, int]:
    """Bytes of an entry of each channel before compression.

    >>> entry_bytes(RunSettings(), Size(105_866, 8, 4))["products"]
    12800
    """
    sketch = settings.recorder.sketch_size
    lengths = {"layer": size.layers, "group": size.groups, "sketch": sketch, "parameter": size.parameters}
    lengths["optimizer_group"] = 1
    missing = _NOT_WRITTEN | (set() if settings.clip_norm else {"clip_factor"})
    missing |= _CHUNKS if settings.accumulate == 1 else set()
    if settings.optimizer != "SGD":
        missing |= _OF_SGD
    elif settings.momentum:
        missing |= {"update_squared"}  # the velocity tells it
    found = dict.fromkeys(CHANNELS, 0)
    for array in ARRAYS:
        *fixed, growing = array.dims
        if array.name not in missing:
            due = growing == "step" and {"layer", "group"} & set(fixed) and array.name not in _CHUNKS
            channel = "products" if due else growing
            found[channel] += _BYTES[array.dtype] * prod(lengths[dim] for dim in fixed)
    return found


def model_size(settings: RunSettings) -> Size | None:
    """Parameters, layers and groups of the two small models on the data sets of known shape; None for others."""
    if settings.model not in ("cnn", "mlp") or settings.data not in _SHAPES:
        return None
    (channels, *pixels), classes = _SHAPES[settings.data]
    height, width = (settings.image_size, settings.image_size) if settings.image_size else pixels
    if settings.model == "mlp":
        return Size(_dense(channels * height * width, 1024) + _dense(1024, 512) + _dense(512, classes), 6, 3)
    convolutions = _dense(9 * channels, 16) + _dense(9 * 16, 32)
    return Size(convolutions + _dense(32 * (height // 4) * (width // 4), 64) + _dense(64, classes), 8, 4)


def _dense(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
