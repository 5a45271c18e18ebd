"""Runs as `open_run` gives them, made up from motions and losses whose answers are known."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
