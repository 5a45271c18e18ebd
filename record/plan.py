"""`thermodl record --dry-run`: what a recording would hold and cost, from a few steps recorded elsewhere."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from .budget import PLURALS, Budget, foretell
from .forecast import planned_entries
from .format import GROWING, growing_dimension
from .observables import PRODUCTS, SKETCHES
from .schedule import compile_schedule, count_due
from .settings import RunSettings
from .store import open_run
from .train import train
from .words import counted

_TRIED_STEPS = 40
_OF_PRODUCTS = {*PRODUCTS, *SKETCHES}
# No training step is shorter, whatever a clock says: what recording adds is told relative to it.
_SHORTEST_SECONDS = 1e-6


@dataclass(frozen=True)
class Channel:
    """One growing dimension of a planned run, or the inner products and sketches of its steps."""

    name: str
    entries: int
    bytes_per_entry: int
    """before compression"""
    seconds_per_entry: float
    """what an entry takes from the training; 0 where the training does it anyway"""


@dataclass(frozen=True)
class Plan:
    """A planned run."""

    parameters: int
    layers: int
    groups: int
    seconds_per_step: float
    """of the plain step, positive"""
    channels: list[Channel]
    left: dict[str, int] = field(default_factory=dict)
    """entries that max_overhead and max_bytes leave of the channels that they thin"""

    @property
    def overhead(self) -> float:
        """Expected ratio of recording to plain training, less 1; without compression, which runs beside it."""
        spent = sum(channel.entries * channel.seconds_per_entry for channel in self.channels)
        return spent / (self.channels[0].entries * self.seconds_per_step)


def make_plan(settings: RunSettings) -> Plan:
    """Train and record some steps in a temporary folder, and extrapolate to the whole run.

    Raises:
        SettingsError: as `train`.
    """
    # Two at least, for there is no time from one step to the next otherwise.
    steps = max(2, min(_TRIED_STEPS, settings.steps))
    # A first, thrown away: it compiles and warms up.
    recorder = settings.recorder.model_copy(update={"max_overhead": None, "max_bytes": None})
    if recorder.products_every:
        # So few steps may hold none of those that are planned.
        recorder = recorder.model_copy(update={"products_every": 1})
    updates = {"steps": 2, "evaluate_every": 0, "checkpoint_every": 0, "recorder": recorder}
    trial = settings.model_copy(update=updates)
    with TemporaryDirectory(prefix="thermodl-dry-run-") as folder:
        train(trial, Path(folder) / "warm")
        train(trial.model_copy(update={"steps": steps}), Path(folder) / "run")
        run = open_run(Path(folder) / "run")
        clock = run["wall_time"].values
        events = {
            dim: run[f"{dim}_step"].values
            for dim in ("probe", "curvature", "per_sample", "snapshot")
            if f"{dim}_step" in run
        }
        seconds = run.attrs["recorder_seconds"]
        sizes = {
            dim: sum(
                array.nbytes // array.sizes[dim]
                for name, array in run.data_vars.items()
                if array.sizes.get(dim) and growing_dimension(str(name)) == dim
            )
            for dim in GROWING
        }
        sizes["products"] = sum(run[name].nbytes // steps for name in _OF_PRODUCTS & set(run.data_vars))
        sizes["step"] -= sizes["products"]
        tried = {dim: run.sizes.get(dim, 0) for dim in sizes}
    window = recorder.moments_window
    planned = planned_entries(settings)
    each = {
        "step": seconds["steps"] / steps,
        "products": seconds["products"] / steps,
        "probe": seconds["probes"] / max(1, tried["probe"]),
        "curvature": seconds["curvature"] / max(1, tried["curvature"]),
        "per_sample": seconds["per_sample"] / max(1, tried["per_sample"]),
        # A window costs at each of its steps.
        "window": seconds["moments"] / steps * window,
        "snapshot": seconds["snapshots"] / max(1, tried["snapshot"]),
    }
    recording = np.full(steps, (seconds["steps"] + seconds["products"] + seconds["moments"]) / steps)
    for dim, at in events.items():
        recording[at] += each[dim]
    # What is due at the first step and was not recorded cannot be for this model or optimizer.
    for dim in ("curvature", "per_sample"):
        if count_due(getattr(recorder, f"{dim}_every"), 1) and not tried[dim]:
            planned[dim] = 0
    names = ("step", "products", *GROWING[1:])
    channels = [Channel(name, planned[name], sizes[name], each.get(name, 0.0)) for name in names]
    layers = run.attrs["layers"]
    parameters = sum(layer["size"] for layer in layers)
    plain = plain_step(clock, recording)
    left = {}
    if settings.recorder.max_overhead is not None or settings.recorder.max_bytes is not None:
        # A step of a window takes its time whether the window is kept or not.
        of_products = each["products"] * planned["products"] / settings.steps
        each |= {"step": each["step"] + of_products + seconds["moments"] / steps, "window": 0.0}
        kinds = {name: size for name, size in sizes.items() if name == "products" or (name != "evaluation" and size)}
        both_ends = run["initial_parameters"].nbytes + run["final_parameters"].nbytes
        budget = Budget(settings.recorder, kinds, settings.steps, both_ends)
        due = {dim: compile_schedule(getattr(recorder, f"{dim}_every")) for dim in events if dim in kinds}
        if "window" in kinds:
            due["window"] = lambda step: (step + 1) % window == 0 or step + 1 == settings.steps
        left = foretell(budget, due, settings.steps, each, plain)
    return Plan(parameters, len(layers), len(run.attrs["groups"]), plain, channels, left)


def plain_step(wall_time: np.ndarray, recording: np.ndarray) -> float:
    """Seconds of a step without its recording; positive.

    It is the median, so that a pause of the machine, or of the writer for the disk, does not count.

    Args:
        wall_time: (step,) when each step began, s; two at least.
        recording: (step,) what recording took of each, s.
    """
    return max(float(np.median(np.diff(wall_time) - recording[:-1])), _SHORTEST_SECONDS)


def describe_plan(settings: RunSettings, folder: Path, plan: Plan) -> str:
    """The plan as text."""
    lines = [
        f"{folder}: {counted(settings.steps, 'step')} of {settings.model} on {settings.data}; "
        f"{counted(plan.parameters, 'parameter')} in {counted(plan.layers, 'layer')}, {counted(plan.groups, 'group')}",
        f"  {'channel':<11}{'entries':>9}{'bytes each':>13}{'bytes':>12}{'ms each':>10}{'of a plain run':>16}",
    ]
    total = settings.steps * plan.seconds_per_step
    for one in plan.channels:
        share = one.entries * one.seconds_per_entry / total
        size = one.entries * one.bytes_per_entry / 1e6
        lines.append(
            f"  {one.name:<11}{one.entries:>9,}{one.bytes_per_entry:>13,}{size:>9,.1f} MB"
            f"{1000 * one.seconds_per_entry:>10.2f}{share:>16.1%}"
        )
    if plan.left:
        planned = {one.name: one.entries for one in plan.channels}
        parts = ", ".join(f"{kept:,} of {planned[name]:,} {PLURALS[name]}" for name, kept in plan.left.items())
        limits = {"max_overhead": settings.recorder.max_overhead, "max_bytes": settings.recorder.max_bytes}
        given = " and ".join(f"{name} = {limit:,}" for name, limit in limits.items() if limit is not None)
        lines.append(f"  {given} would leave {parts}, or more with compression")
    lines.append(
        f"  a plain step takes {1000 * plan.seconds_per_step:.1f} ms, the run {total:,.0f} s; recording adds "
        f"{plan.overhead:.1%}. Bytes are before compression; evaluations count as training. Nothing was written."
    )
    return "\n".join(lines)
