"""Runs made up from motions and losses whose answers are known: as `open_run` gives them, and of any size on disk."""

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.signal import lfilter

from thermodl.record.writer import RunWriter

Floats = NDArray[np.float64]
_RATE, _RELAXATION = 0.01, 0.02
_PROBE_EVERY = 50
_BLOCK = 4096
"""steps that are made at a time, a multiple of the steps in a chunk"""


def make_run(
    positions: Floats,
    *,
    learning_rate: Floats | float = 1.0,
    momentum: float = 0.0,
    size: int | None = None,
    loss: Floats | None = None,
    noise_trace: Floats | None = None,
    probe_every: int = 10,
) -> xr.Dataset:
    """A run of SGD whose groups, of one layer each, go through given positions (group, sketch, step).

    Args:
        learning_rate: of each step, or of all. size: parameters of a group; as many as sketch coordinates if None.
        noise_trace: tr C of each group at each step, (group, step), kept at every `probe_every`th.
    """
    groups, width, steps = positions.shape
    names = [f"group{index}" for index in range(groups)]
    rate = np.broadcast_to(np.asarray(learning_rate, float), (1, steps))
    constants = {"momentum": momentum, "dampening": 0.0, "weight_decay": 0.0}
    run = xr.Dataset(
        {
            "parameter_sketch": (("group", "sketch", "step"), positions),
            "displacement_squared": (("layer", "step"), np.sum((positions - positions[..., :1]) ** 2, axis=1)),
            "learning_rate": (("optimizer_group", "step"), rate),
        }
        | {name: (("optimizer_group", "step"), np.full((1, steps), value)) for name, value in constants.items()}
        | ({} if loss is None else {"loss": ("step", loss)}),
        coords={
            "group": names,
            "layer": names,
            "step": np.arange(steps),
            "sgd_time": ("step", np.cumsum(rate[0]) / (1 - momentum)),
            "layer_group": ("layer", names),
            "layer_size": ("layer", np.full(groups, size or width)),
            "layer_optimizer_group": ("layer", np.zeros(groups, int)),
        },
        attrs={"optimizer": {"class": "SGD", "nesterov": False}},
    )
    if noise_trace is None:
        return run
    at = np.arange(0, steps, probe_every)
    return run.assign(noise_trace=(("layer", "probe"), noise_trace[:, at])).assign_coords(probe_step=("probe", at))


def write_run(folder: Path, steps: int, *, groups: int = 16, sketch: int = 256) -> int:
    """Write Ornstein–Uhlenbeck coordinates, one layer to a group, with gradient and probe sketches.

    Returns:
        Bytes of the sketches of positions, 8 in each entry, and of gradients, 4.
    """
    rng = np.random.default_rng(0)
    size = 1000 * sketch
    names = [f"block{i}" for i in range(groups)]
    sizes = {"layer": groups, "group": groups, "sketch": sketch, "parameter": groups * size, "optimizer_group": 1}
    attributes = {
        "run_id": f"large-{steps}",
        "layers": [
            {"name": f"{name}.weight", "shape": [size], "size": size, "group": name, "optimizer_group": 0}
            for name in names
        ],
        "groups": names,
        "optimizer": {"class": "SGD", "nesterov": False, "weight_decay_kind": "coupled"},
        "parameter_dtype": "float32",
        "sampling": "replacement",
        "not_recorded": {},
    }
    per_layer = ("gradient_squared", "parameter_dot_gradient", "parameter_squared", "displacement_squared")
    per_layer += ("update_squared", "velocity_squared", "velocity_dot_gradient", "parameter_dot_velocity")
    scalars = ("step", "sgd_time", "loss", "learning_rate", "momentum", "dampening", "weight_decay")
    writer = RunWriter(folder, sizes, [*scalars, *per_layer, "parameter_sketch", "gradient_sketch"], attributes)
    memory = np.zeros((groups, sketch, 1))
    for start in range(0, steps, _BLOCK):
        count = min(_BLOCK, steps - start)
        noise = rng.standard_normal((groups, sketch, count), dtype=np.float32)
        # x(t+1) = (1 − k) x(t) − η ξ(t): the gradient is k x/η + ξ.
        decay = 1 - _RELAXATION
        kicked, memory = lfilter([0.0, -_RATE], [1.0, -decay], noise.astype(float), zi=memory)
        gradient = _RELAXATION / _RATE * kicked + noise
        squared = np.sum(gradient**2, axis=1)
        zeros = np.zeros((1, count))
        block = {
            "step": np.arange(start, start + count, dtype=float),
            "sgd_time": np.arange(start, start + count) * _RATE,
            "loss": 1 + 0.1 * rng.standard_normal(count),
            "learning_rate": zeros + _RATE,
            "momentum": zeros,
            "dampening": zeros,
            "weight_decay": zeros,
            "gradient_squared": squared,
            "parameter_dot_gradient": np.sum(kicked * gradient, axis=1),
            "parameter_squared": np.sum(kicked**2, axis=1),
            "displacement_squared": np.sum(kicked**2, axis=1),
            "update_squared": squared * _RATE**2,
            "velocity_squared": squared,
            "velocity_dot_gradient": squared,
            "parameter_dot_velocity": np.sum(kicked * gradient, axis=1),
            "parameter_sketch": kicked,
            "gradient_sketch": gradient,
        }
        at = np.arange(-start % _PROBE_EVERY, count, _PROBE_EVERY)
        other = _RELAXATION / _RATE * kicked[..., at] + rng.standard_normal((groups, sketch, len(at)))
        difference = gradient[..., at] - other
        probes = {
            "probe_step": (start + at).astype(float),
            "noise_trace": np.sum(difference**2, axis=1) / 2,
            "gradient_dot": np.sum(gradient[..., at] * other, axis=1),
            "probe_sketch": other,
        }
        writer.append("step", block)
        if len(at):
            writer.append("probe", probes)
    writer.close("finished")
    return 12 * groups * sketch * steps
