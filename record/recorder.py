"""The recorder: two lines in any PyTorch loop, measuring at the optimizer's own pre- and post-step hooks.

There the gradient is unscaled, accumulated, reduced and clipped, the update is exact, and steps that a GradScaler
skips appear only as a count. Every step fills one row of a buffer on the device; a flush copies the buffer to the
host once, and a background thread writes it. Recording does not disturb: weights are bit for bit those of the plain
loop.

Of a step where nothing is due only clocks and hyper-parameters are noted, and no tensor is looked at. A probe needs
θ and g of its step, whether or not the inner products of that step are due. Where the optimizer keeps no velocity,
θ is also looked at in the step before a due one, for its velocity, and in the step after, for its update.
"""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import observables
from .absent import CHUNKS, PER_SAMPLE, reasons
from .attributes import describe_run, reliability
from .budget import Budget
from .buffer import CLOCKS, HYPERPARAMETERS, StepBuffer
from .chunks import ChunkNoise
from .curvature import hessian_product
from .distributed import (
    SilentWriter,
    as_rank_0,
    find_rank,
    from_rank_0,
    in_all_ranks,
    mean_gradients,
    mean_over_ranks,
)
from .errors import RunError, first_line
from .format import GROWING, NAME, RESERVED, UNITS_OF_SGD, growing_dimension
from .hooks import StepHooks, has_overflow, loss_scale
from .layers import Layer, decay_kind, find_layers, has_velocity, unwrap_optimizer
from .moments import MomentWindow
from .per_sample import Samples, sample_noise
from .probe import probe_gradient
from .schedule import compile_schedule
from .settings import SAMPLINGS, RecorderSettings
from .signs import draw_signs
from .velocities import Velocities
from .writer import RunWriter, remove_recording

_MEASURED = {
    "skipped",
    "layer_skipped",
    *CHUNKS,
    *CLOCKS,
    *HYPERPARAMETERS,
    *observables.PRODUCTS,
    *observables.SKETCHES,
}
_PROBE_STREAM = 2**32
_CURVATURE_STREAM = 2**62
_SAMPLE_STREAM = 2**61
"""seeds of the random numbers inside a probe, of each rank and step, inside a curvature, and inside single samples"""
_STRETCH = 256
_LASTING = ("products_every", "sketch_size", "sketch_seed")
"""settings that say what a row of the recording means, and stay when it is resumed"""
_SPENT: tuple[str, ...] = ("steps", "products", "probes", "curvature", "per_sample", "moments", "snapshots", "waiting")
_SNAPSHOTS = 64
_SNAPSHOT_BYTES = 2**26
"""most snapshots, and most bytes of them, that wait in memory for the writer; one may always wait"""


class Recorder:
    """Record a training run.

    Use it as a context manager around the loop, or call `close` at the end; a run that ends by an exception is marked
    as failed (by Ctrl-C as stopped). If the store can no longer be written, or a step cannot be measured, one warning
    says why and how much is safe, and the training goes on unrecorded.

    In data-parallel training every process makes a recorder, with a probe that draws that process's part of a global
    batch; rank 0 writes, and what it logs is kept.

    Args:
        model: the network in training.
        optimizer: any torch optimizer; what is not defined for it (the velocity, for all but SGD) is not recorded,
            and the attribute `not_recorded` says so.
        folder: the run folder, made if missing; `run.zarr` is written inside.
        probe: a function without arguments that draws its own mini-batch, independent of the optimizer step's, of the
            same size and drawn in the same way, and returns its loss; it never runs out. The first probe draws twice,
            to see whether it draws anew. Without it there is no noise temperature. With `curvature_every` it is also
            called for vᵀHv, and differentiated twice.
        samples: a function without arguments that draws a mini-batch of independent samples and returns (inputs,
            targets), with samples along the first dimension, for `per_sample_every`.
        sample_loss: of the model's output and the targets, such as `torch.nn.functional.cross_entropy`.
        settings: cadence and size of the channels.
        attributes: JSON-able facts to keep with the run, such as `sampling`, `batch_size`, `train_size`; with
            `planned_steps`, the length of the training, `max_bytes` is spread over all of it.
        overwrite: replace a recording that is already there.
        resume: what `state_dict` gave; the recording in the folder goes on from there, and what it holds of later
            steps is dropped. Model and optimizer must be as they were then.

    Raises:
        RunError: if the folder holds a recording and `overwrite` is false or cannot be written, there is nothing to
            record, the parameters are of a kind that cannot be recorded, or what is resumed had other settings for
            what every step holds.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        folder: str | Path,
        *,
        probe: Callable[[], Tensor] | None = None,
        samples: Samples | None = None,
        sample_loss: Callable[[Any, Any], Tensor] | None = None,
        settings: RecorderSettings | None = None,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: Mapping[str, Any] | None = None,
    ):
        self.folder = Path(folder)
        self.settings = settings or RecorderSettings()
        self._model, self._optimizer = model, (optimizer := unwrap_optimizer(optimizer))
        self._rank, self._ranks = find_rank()
        for given, what in ((probe, "probe"), (samples, "samples"), (sample_loss, "sample_loss")):
            if given is not None and not callable(given):
                raise RunError(f"{what} is {type(given).__name__}; expected a function, which draws anew at every call")
        self._probe = probe if self.settings.probe_every else None
        self._probe_checked = False
        self._products_due = compile_schedule(self.settings.products_every)
        self._probe_due = compile_schedule(self.settings.probe_every)
        self._curvature_due = compile_schedule(self.settings.curvature_every)
        self._sample_due = compile_schedule(self.settings.per_sample_every)
        self._snapshot_due = compile_schedule(self.settings.snapshot_every)
        self._layers, self._groups = find_layers(model, optimizer)
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._frozen = [parameter for parameter in held if not parameter.requires_grad]
        self._decay = decay_kind(optimizer)
        self._curvature = probe if self.settings.curvature_every and has_velocity(optimizer) else None
        self._samples: tuple[Samples, Callable[[Any, Any], Tensor]] | None = None
        if self.settings.per_sample_every and samples and sample_loss and self._ranks == 1:
            self._samples = samples, sample_loss

        self._device = self._layers[0].parameter.device
        double = all(layer.parameter.dtype == torch.float64 for layer in self._layers)
        self._dtype = torch.float64 if double else torch.float32
        wide = torch.float32 if self._device.type == "mps" else torch.float64
        self._velocities = Velocities(optimizer, self._layers, self._flat)
        self._reference = self._velocities.parameters()
        self._optimizer_groups = len(optimizer.param_groups)
        self._signs = self._draw_signs()
        window = self.settings.moments_window
        self._moments = MomentWindow(self._reference, window) if window else None
        self._layout = np.array([(x.start, x.size, x.group, x.offset) for x in self._layers])
        # The sums run in stretches of the sketch's width; where it is switched off it is made all the same, not kept.
        self._width = self.settings.sketch_size or _STRETCH
        self._buffer = StepBuffer(len(self._layers), len(self._groups), self._width, self._device, wide)
        self._wide = wide

        self._step, self._sgd_time, self._passing = 0, 0.0, 0.0
        self._seconds: dict[str, float] = dict.fromkeys(_SPENT, 0.0)
        # Their sum, without what a resumed recording took before.
        self._booked = 0.0
        self._chunks: ChunkNoise | None = None
        self._chunk_row: dict[str, float | Tensor] = {}
        # Whether the present step leaves each layer alone; empty if it moves them all.
        self._left_alone: list[bool] = []
        # A step counts when it is made: until then what was measured before it is held.
        self._measuring = False
        self._held: list[tuple[str, dict[str, np.ndarray]]] = []
        self._lost, self._closed = "", False
        self._names: dict[str, str] = {}
        self._logged: set[str] = set()
        self._checked: set[str] = set()
        # What a GradScaler does: steps that were not made since the last one, whether this one is such, g's factor.
        self._skipped, self._skips = 0, False
        self._scale: Tensor | None = None
        self._said: set[str] = set()
        self._started = self._flushed = time.perf_counter()
        self._events: dict[str, list[dict[str, np.ndarray]]] = {dim: [] for dim in GROWING[1:]}
        self._pending: Future[None] | None = None
        self._dropped = reasons(
            self.settings,
            type(optimizer).__name__,
            self._ranks,
            has_probe=probe is not None,
            has_samples=bool(samples and sample_loss),
            has_velocity=self._velocities.defined,
            keeps_parameters=self._velocities.previous is not None,
        )
        # Of what is not there, or ends before the recording does, as it turns out.
        self._lacking: dict[str, str] = {
            name: "micro_batch() was not called twice in a step" for name in CHUNKS if name not in self._dropped
        }
        if (sampling := (attributes or {}).get("sampling", SAMPLINGS[0])) not in SAMPLINGS:
            self._warn_once(
                f"the attribute sampling is {sampling!r}; analyses know {' and '.join(map(repr, SAMPLINGS))}, and take "
                "any other for unknown"
            )
        for name, setting, lacks in (
            ("velocity_curvature", "curvature_every", probe is None),
            (PER_SAMPLE[0], "per_sample_every", not (samples and sample_loss)),
        ):
            if getattr(self.settings, setting) and lacks:
                self._warn_once(f"{setting} is set, but {self._dropped[name]}; all else is recorded")
        if resume and (before := resume.get("lasting", self._lasting())) != self._lasting():
            raise RunError(
                f"{self.folder} was recorded with {_spell(before)}, and cannot go on with {_spell(self._lasting())}"
            )
        committed = resume["writer"]["committed"] if resume else None
        self._writer = SilentWriter() if self._rank else self._create_run(dict(attributes or {}), overwrite, committed)
        if resume:
            self._load_state_dict(resume)
        else:
            self._writer.write_fixed("initial_parameters", self._reference.cpu().numpy())
        self._budget = self._make_budget((attributes or {}).get("planned_steps"), resume)
        self._thread = ThreadPoolExecutor(1, "thermodl-writer")
        self._hooks = StepHooks(optimizer, self._before_step, self._after_step)

    # ------------------------------------------------------------------------------------------------- public

    @property
    def step(self) -> int:
        """Number of optimizer steps seen."""
        return self._step

    @property
    def lost(self) -> str:
        """Why the recording stopped before its time, and how much of it is safe; empty as long as all is well."""
        return self._lost

    def micro_batch(self) -> None:
        """Measure a micro-batch: to be called after each `backward()` where a step accumulates several equal ones.

        From K ≥ 2 of them the store has the noise of the step, `chunk_noise_trace`, without a probe. It costs one more
        vector of the size of the gradient, and a pass over it each time. Between the last and `optimizer.step()` the
        gradient must stay as it is: where it was clipped or unscaled the noise is NaN, because the sum is no longer
        that of the micro-batches. With several data-parallel processes it does nothing.
        """
        if self._lost or self._closed or self._ranks > 1:
            return
        started = time.perf_counter()
        self._attempt(self._add_micro_batch)
        self._spend("steps", started)

    def log(self, **values: float | Tensor) -> None:
        """Attach scalars to the step just made: `loss`, `epoch`, `epoch_position`, `clip_factor`, or one's own.

        A tensor is copied on its device, without waiting for it. A name that comes a second time belongs to a step
        that was not made, as when a GradScaler skips it: it is not kept, and the next step counts it in `skipped`.
        Where there is no row to log to, before the first step and after flush(), it is ignored with a warning.

        Raises:
            ValueError: if the recorder measures the name itself, it means something else in the run format or in
                this run, or is no plain name.
        """
        for name in values.keys() - self._checked:
            self._check_name(name, "step")
            self._checked.add(name)
        if self._lost or self._closed or self._rank:
            return
        started = time.perf_counter()
        first = not self._step and not self._skipped
        if not self._logged.isdisjoint(values) or (first and has_overflow(layer.parameter for layer in self._layers)):
            self._note_skipped()
        if self._buffer.count == 0 and not self._skipped:
            why = "before flush(), which has written the step" if self._step else "after optimizer.step()"
            self._warn_once(f"log() is ignored: it belongs {why}")
            return
        self._logged.update(values)
        if not self._skipped:
            for name, value in values.items():
                self._buffer.put_extra(name, value)
        self._spend("steps", started)

    def log_evaluation(self, **values: float) -> None:
        """Keep `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`, or one's own, of the present parameters.

        Raises:
            ValueError: if the name means something else in the run format or in this run, or is no plain name.
        """
        for name in values:
            self._check_name(name, "evaluation")
        if not self._lost and not self._closed and not self._rank:
            event = {"evaluation_step": self._step} | {name: float(value) for name, value in values.items()}
            self._events["evaluation"].append({name: np.asarray(value) for name, value in event.items()})

    def flush(self) -> None:
        """Hand what is in memory to the writer and wait until it is committed."""
        self._attempt(self._submit)
        self._wait()

    def state_dict(self) -> dict[str, Any]:
        """Flush, and give what a recorder needs to go on from here (`resume`); to be kept with model and optimizer.

        It holds tensors and plain values only, so that `torch.load(weights_only=True)` reads it. What was logged to
        the last step by then is part of it; a window of moments that is not full goes on.
        """
        self.flush()
        writer = self._writer.state_dict()
        if writer["snapshots"]:
            vectors = writer["snapshots"].items()
            writer["snapshots"] = {name: torch.as_tensor(vector) for name, vector in vectors}
        return {
            "writer": writer,
            "lasting": self._lasting(),
            "step": self._step,
            "sgd_time": float(self._sgd_time),
            "wall_time": time.perf_counter() - self._started,
            "seconds": self._seconds,
            "names": self._names,
            "probe_checked": self._probe_checked,
            "not_recorded": self._dropped,
            "lacking": self._lacking,
            "reference": self._reference,
            **self._velocities.state_dict(),
            "moments": self._moments and self._moments.state_dict(),
            "budget": self._budget and self._budget.state_dict(),
        }

    def _lasting(self) -> dict[str, Any]:
        return {name: getattr(self.settings, name) for name in _LASTING}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step, self._sgd_time = state["step"], state["sgd_time"]
        self._started = time.perf_counter() - state["wall_time"]
        self._seconds, self._names = self._seconds | state["seconds"], dict(state["names"])
        self._probe_checked, self._dropped = state["probe_checked"], self._dropped | state["not_recorded"]
        if "sgd_time" not in state["not_recorded"]:
            # An early recording of another optimizer summed its learning rates, and goes on with it.
            self._dropped.pop("sgd_time", None)
        self._writer.note(**reliability(self._model, self._layers, self.settings))
        self._lacking = dict(state.get("lacking", self._lacking))
        if "velocity_curvature" in self._lacking:
            self._curvature = None
        if PER_SAMPLE[0] in self._lacking:
            self._samples = None
        self._writer.load_state_dict(state["writer"])
        self._reference.copy_(state["reference"])
        self._velocities.load_state_dict(state)
        if self._moments is not None:
            self._moments.load_state_dict(state["moments"])

    def close(self, state: str = "finished") -> None:
        """Write everything, mark the run, and let go of the optimizer; a second call does nothing."""
        if self._closed:
            return
        self._hooks.remove()
        self._attempt(self._end_window)
        self.flush()
        self._closed = True
        self._attempt(lambda: self._finish(state))
        self._thread.shutdown()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close("finished")
        else:
            self.close("stopped" if issubclass(kind, KeyboardInterrupt) else "failed")

    # ------------------------------------------------------------------------------------------------- measuring

    def _before_step(self) -> None:
        if self._lost and self._ranks == 1:
            return
        started, booked = time.perf_counter(), self._booked
        try:
            self._scale, self._skips = loss_scale(self._optimizer)
            if self._skips:
                self._note_skipped()
                if self._chunks is not None:
                    self._chunks.forget()
                return
            # A probe is taken by all processes together, whatever has become of the recording.
            probe = (
                self._probe
                if self._probe is not None and self._probe_due(self._step) and self._allows("probe")
                else None
            )
            probed = None if probe is None else self._take_probe(probe)
            probe = self._curvature if self._curvature is not None and self._curvature_due(self._step) else None
            probe = probe if probe is not None and self._allows("curvature") else None
            curved = None if probe is None else self._take_curvature(probe)
            sampled = None
            if self._samples is not None and self._sample_due(self._step) and self._allows("per_sample"):
                sampled = self._take_samples(*self._samples)
            if self._lost or self._rank:
                self._measuring = True
            else:
                self._measure_step(probed, curved, sampled)
        except Exception as error:  # a measurement that fails is no reason for the training to fail
            self.flush()
            self._give_up(error)
        finally:
            self._book_rest(started, booked)

    def _measure_step(
        self,
        probed: tuple[Tensor, list[Tensor | None]] | None,
        curved: Tensor | None,
        sampled: tuple[Tensor, int] | None,
    ) -> None:
        started = time.perf_counter()
        late = started - self._flushed > self.settings.flush_seconds
        waiting = len(self._events["snapshot"])
        many = waiting and waiting >= min(_SNAPSHOTS, _SNAPSHOT_BYTES // self._reference.nbytes)
        if self._buffer.count == self._buffer.capacity or ((late or many) and self._buffer.count):
            self._submit()
            started = time.perf_counter()
        snapshot = self._snapshot_due(self._step) and self._allows("snapshot")
        if self._lost:
            return
        if self._measuring:
            self._forget_step()
        self._note_clocks(started)
        due, chunked = self._products_due(self._step), self._chunks is not None and self._chunks.count
        looks = due or chunked or probed is not None or self._moments is not None
        now = [self._now(layer) for layer in self._layers] if looks else []
        self._chunk_row = self._take_chunks(now) if chunked else {}
        if due:
            started = self._spend("steps", started)
            self._measure_products(now)
            started = self._spend("products", started)
        else:
            self._pass_over()
            if looks:
                started = self._spend("steps", started)
        self._measuring = True
        if probed is not None:
            self._record_probe(*probed, now)
            started = self._spend("probes", started)
        if curved is not None:
            self._hold("curvature", curvature_step=self._step, velocity_curvature=curved.cpu().numpy())
            started = self._spend("curvature", started)
        if sampled is not None:
            trace, count = sampled
            self._hold(
                "per_sample",
                per_sample_step=self._step,
                per_sample_noise_trace=trace.cpu().numpy(),
                per_sample_count=count,
            )
            started = self._spend("per_sample", started)
        if self._moments is not None:
            full = self._moments.add(now, [layer.part for layer in self._layers], self._step)
            self._hold("window", **(full if full and self._allows("window", look_up=False) else {}))
            started = self._spend("moments", started)
        if snapshot:
            self._hold("snapshot", snapshot_step=self._step, parameters=self._velocities.parameters().cpu().numpy())
            self._spend("snapshots", started)

    def _measure_products(self, now: list[observables.Now]) -> None:
        """Inner products and sketches of the step, and the squared update of the step before where it waits for it."""
        now = self._velocities.complete(now, self._step)
        self._left_alone = [one.gradient is None for one in now]
        completes = self._awaits_update()
        products, sketches = self._buffer.measure_row()
        if completes:
            # Whatever breaks off the measurement, no wrong number stays.
            self._buffer.complete_last_row(torch.nan)
        self._measuring = True
        previous = self._velocities.previous
        observables.measure(now, self._layout, self._reference, previous, self._signs, products, sketches)
        if completes:
            self._buffer.complete_last_row(products[-1])
        self._velocities.note_step()

    def _pass_over(self) -> None:
        """What a step without inner products owes to its neighbours with them, where there is no velocity: its θ."""
        if self._awaits_update():
            self._complete_last_row()
        following = self._step + 1
        if self._products_due(following) or (self._curvature is not None and self._curvature_due(following)):
            self._velocities.keep_parameters()

    def _awaits_update(self) -> bool:
        """Whether the last row lacks its squared update, which the parameters tell now.

        A step that was measured, and not made, has told the update before it.
        """
        return self._velocities.previous is not None and self._buffer.last_is_measured and not self._measuring

    def _after_step(self) -> None:
        if self._skips or not self._measuring:
            return
        started = time.perf_counter()
        self._measuring = False
        self._step += 1
        if self._lost or self._rank:
            return
        for dim, values in self._held:
            self._events[dim].append(values)
        self._held.clear()
        self._sgd_time += self._passing
        self._buffer.end_row()
        if self._skipped:
            self._buffer.put_extra("skipped", self._skipped)
        self._skipped = 0
        for name, value in self._chunk_row.items():
            self._buffer.put_extra(name, value, value.shape if isinstance(value, Tensor) else ())
            self._lacking.pop(name, None)
        self._chunk_row = {}
        if any(self._left_alone):
            self._buffer.put_extra("layer_skipped", torch.tensor(self._left_alone), (len(self._layers),))
        self._left_alone = []
        self._logged.clear()
        self._spend("steps", started)

    def _add_micro_batch(self) -> None:
        if self._chunks is None:
            self._chunks = ChunkNoise(self._reference, [layer.part for layer in self._layers], self._wide)
        gradients = [layer.parameter.grad for layer in self._layers]
        self._chunks.add([None if gradient is None else self._flat(gradient) for gradient in gradients], gradients)

    def _take_chunks(self, now: list[observables.Now]) -> dict[str, float | Tensor]:
        """What the micro-batches of the step tell; nothing if there were none."""
        count = 0 if self._chunks is None else self._chunks.count
        trace = None if self._chunks is None else self._chunks.take([layer.gradient for layer in now])
        return {} if trace is None else dict(zip(CHUNKS, (trace, float(count)), strict=True))

    def _note_skipped(self) -> None:
        """A step was tried and not made; what is logged until the next one is made is of no step."""
        self._skipped += 1
        self._logged.clear()

    def _forget_step(self) -> None:
        """Undo what the measurement of a step left that was then not made: its events, its window, its θ."""
        self._held.clear()
        if self._moments is not None:
            self._moments.take()
        self._velocities.forget()

    def _spend(self, what: str, since: float) -> float:
        """Book the time since then, and give the present one."""
        now = time.perf_counter()
        self._seconds[what] += now - since
        self._booked += now - since
        return now

    def _book_rest(self, since: float, booked: float) -> None:
        """Book as `steps` what has passed since then and is in no kind yet, of which `booked` was before."""
        rest = time.perf_counter() - since - (self._booked - booked)
        self._seconds["steps"] += rest
        self._booked += rest

    def _now(self, layer: Layer) -> observables.Now:
        """What a layer holds before a step, but for its velocity."""
        parameter, gradient = self._flat(layer.parameter), layer.parameter.grad
        if parameter.device != self._device or parameter.numel() != layer.size:
            raise RunError(f"{layer.name} has moved to {parameter.device}, or its size has changed")
        if gradient is not None:
            gradient = self._flat(gradient)
            if self._scale is not None:
                gradient = gradient / self._scale.to(self._device)
        return observables.Now(parameter, gradient, *self._penalty(layer), None)

    def _penalty(self, layer: Layer) -> tuple[float, float]:
        """Sign and weight decay by which `p.grad` becomes the gradient that the optimizer descends."""
        group = self._optimizer.param_groups[layer.optimizer_group]
        # A layer without gradient is not decayed either.
        decays = self._decay == "coupled" and layer.parameter.grad is not None
        return -1.0 if group.get("maximize") else 1.0, float(group.get("weight_decay", 0.0)) if decays else 0.0

    def _complete_last_row(self) -> None:
        """The update of the last step, where no further measurement will tell it; NaN where θ_t was not kept.

        It is summed as `_measure_products` would, so that what is recorded does not depend on when a flush comes.
        """
        if (previous := self._velocities.previous) is None:
            return
        parameters = [self._flat(layer.parameter) for layer in self._layers]
        now = [
            observables.Now(parameter, None, 1.0, 0.0, None if kept else parameter)
            for parameter, kept in zip(parameters, self._velocities.kept, strict=True)
        ]
        products = torch.zeros(len(observables.PRODUCTS), len(now), dtype=self._wide, device=self._device)
        sketches = products.new_zeros(len(observables.SKETCHES), len(self._groups), self._width)
        previous = previous.clone()
        observables.measure(now, self._layout, self._reference, previous, self._signs, products, sketches)
        self._buffer.complete_last_row(products[-1])

    def _note_clocks(self, now: float) -> None:
        groups = self._optimizer.param_groups
        if len(groups) > self._optimizer_groups:
            self._warn_once("the optimizer got further parameters since the recording began; they are not recorded")
        if any(parameter.grad is not None for parameter in self._frozen):
            self._warn_once(
                "parameters are trained that were frozen when the recording began; they are not recorded: make the "
                "recorder before they are frozen, or after they are set free"
            )
        nan = math.nan
        hyperparameters = [
            (float(g["lr"]), g.get("momentum", nan), g.get("dampening", nan), g.get("weight_decay", nan))
            for g in groups[: self._optimizer_groups]
        ]
        self._buffer.begin_row((self._step, self._sgd_time, now - self._started), hyperparameters)
        # SGD time is that of the first group that moves.
        rate, momentum, dampening, _ = next((row for row in hyperparameters if row[0]), hyperparameters[0])
        # Without momentum, which may be NaN, torch leaves the dampening out.
        if momentum > 0:
            kept = rate if math.isnan(dampening) else rate * (1 - dampening)
            rate = kept / (1 - momentum) if momentum != 1 else math.inf
        self._passing = rate

    def _take_probe(self, probe: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor | None]]:
        """Loss and flat gradients of a probe; those of the global batch where there are several processes."""
        started = time.perf_counter()
        parameters = [layer.parameter for layer in self._layers]
        seed = _PROBE_STREAM * (1 + self._rank) + self._step
        try:
            loss, gradients = in_all_ranks(
                lambda: probe_gradient(self._model, parameters, probe, seed), self._reference
            )
        except Exception:
            self._probe = self._curvature = None
            raise
        flat = [None if gradient is None else self._flat(gradient) for gradient in gradients]
        means = mean_over_ranks(loss), mean_gradients(flat, self._layout[:, 1].tolist(), self._reference)
        self._spend("probes", started)
        if not self._probe_checked:
            self._probe_checked = True
            _, again = probe_gradient(self._model, parameters, probe, seed + 1)
            self._compare_probes(gradients, again)
        return means

    def _record_probe(self, loss: Tensor, others: list[Tensor | None], now: list[observables.Now]) -> None:
        """Measure and hold a probe."""
        products = torch.zeros(
            len(observables.PROBE_PRODUCTS), len(self._layers), dtype=self._wide, device=self._device
        )
        folded = torch.zeros(len(self._groups), self._width, dtype=self._wide, device=self._device)
        # A layer that the step leaves alone gets no noise from it, whatever the probe's batch would give it.
        others = [None if one.gradient is None else other for one, other in zip(now, others, strict=True)]
        observables.measure_probe(now, others, self._layout, self._reference, self._signs, products, folded)
        values = dict(zip(observables.PROBE_PRODUCTS, products.cpu().numpy(), strict=True))
        self._hold("probe", probe_step=self._step, probe_loss=float(loss), **values, probe_sketch=folded.cpu().numpy())

    def _take_curvature(self, probe: Callable[[], Tensor]) -> Tensor | None:
        """v·(Hv) of each layer, of the global batch where there are several processes.

        What goes wrong ends this channel alone, with a warning: many a kernel has no second derivative.
        """
        started = time.perf_counter()
        parameters, sizes = [layer.parameter for layer in self._layers], self._layout[:, 1].tolist()
        seed = _CURVATURE_STREAM + _PROBE_STREAM * (1 + self._rank) + self._step
        try:
            velocities = from_rank_0(in_all_ranks(self._find_velocities, self._reference), sizes)
            images = in_all_ranks(
                lambda: hessian_product(self._model, parameters, probe, velocities, seed), self._reference
            )
            products = torch.stack(
                [
                    self._curve(layer, velocity, image)
                    for layer, velocity, image in zip(self._layers, velocities, images, strict=True)
                ]
            )
        except Exception as error:
            self._curvature = None
            self._end_channel("curvature", "the curvature vᵀHv", ("velocity_curvature",), error)
            return None
        products = mean_over_ranks(products)
        self._spend("curvature", started)
        return products

    def _take_samples(self, samples: Samples, loss: Callable[[Any, Any], Tensor]) -> tuple[Tensor, int] | None:
        """tr Ĉ₁ of each layer, and the number of samples; what goes wrong ends this channel alone."""
        started = time.perf_counter()
        parameters = [layer.parameter for layer in self._layers]
        try:
            found = sample_noise(self._model, parameters, samples, loss, _SAMPLE_STREAM + self._step, self._wide)
        except Exception as error:
            self._samples = None
            self._end_channel("per_sample", "the noise of single samples", PER_SAMPLE, error)
            return None
        self._spend("per_sample", started)
        return found

    def _end_channel(self, channel: str, what: str, names: tuple[str, ...], error: Exception) -> None:
        why = f"{type(error).__name__}: {first_line(error)}"
        self._lacking |= dict.fromkeys(names, f"none from step {self._step} on ({why})")
        if self._budget is not None:
            self._budget.drop(channel)
        self._warn_once(f"{what} is not recorded any more ({why}); all else is")

    def _find_velocities(self) -> list[Tensor]:
        """v_t of all layers before they are measured; only rank 0 has all that it takes."""
        if self._lost or self._rank:
            return [torch.zeros_like(self._flat(layer.parameter)) for layer in self._layers]
        # After a step that was not made, the last update is not known.
        return self._velocities.vectors(self._step, forgotten=self._measuring)

    def _curve(self, layer: Layer, velocity: Tensor, image: Tensor | None) -> Tensor:
        """v·(Hv), H of the loss that the optimizer descends."""
        sign, decay = self._penalty(layer)
        velocity = velocity.to(self._wide)
        curve = decay * torch.dot(velocity, velocity)
        return curve if image is None else curve + sign * torch.dot(velocity, self._flat(image).to(self._wide))

    def _compare_probes(self, gradients: list[Tensor | None], again: list[Tensor | None]) -> None:
        """Warn of a probe that gives the same gradients again at the same θ: it does not draw a new batch."""
        pairs = [(a, b) for a, b in zip(gradients, again, strict=True) if a is not None and b is not None]
        if pairs and all(torch.equal(a.to_dense(), b.to_dense()) for a, b in pairs):
            self._warn_once("the probe gave the same gradient twice: it must draw a new mini-batch each time")

    # ------------------------------------------------------------------------------------------------- budget

    def _make_budget(self, planned_steps: int | None, resume: Mapping[str, Any] | None) -> Budget | None:
        if self.settings.max_overhead is None and self.settings.max_bytes is None:
            return None
        layers, parameters = len(self._layers), self._reference.nbytes
        sketch, item = len(self._groups) * self.settings.sketch_size, self._reference.element_size()
        products = sum(name not in self._dropped for name in observables.PRODUCTS)
        # Beside the clocks there is room for a dozen of logged numbers.
        clocks = 8 * (len(HYPERPARAMETERS) * self._optimizer_groups + len(CLOCKS) + 12)
        chunks = 0 if CHUNKS[0] in self._dropped else 8 * layers + 8
        sketches = 0 if observables.SKETCHES[0] in self._dropped else (8 + item) * sketch
        sizes = {"step": clocks + chunks, "products": 8 * products * layers + sketches}
        if self._probe is not None:
            sizes["probe"] = 8 * len(observables.PROBE_PRODUCTS) * layers + item * sketch + 16
        if self._curvature is not None:
            sizes["curvature"] = 8 * layers + 8
        if self._samples is not None:
            sizes["per_sample"] = 8 * layers + 16
        if self._moments is not None:
            sizes["window"] = 2 * parameters + 16
        sizes["snapshot"] = parameters + 12 * layers + 8
        budget = Budget(self.settings, sizes, planned_steps, fixed=parameters)
        if resume and resume.get("budget"):
            budget.load_state_dict(resume["budget"])
        elif not self._rank:
            budget.look_up(self._step, self._writer.bytes_on_disk())
        return budget

    def _allows(self, channel: str, *, look_up: bool = True) -> bool:
        """Whether the budget allows an event that is due; of what needs all processes all ask, and rank 0 decides."""
        budget, answers = self._budget, []
        if budget is None:
            return True

        def bytes_on_disk() -> dict[str, int]:
            self.flush()
            return self._writer.bytes_on_disk()

        def ask() -> None:
            wall_time = time.perf_counter() - self._started
            answers.append(
                budget.allows(channel, self._step, wall_time, self._seconds, bytes_on_disk if look_up else None)
            )

        if not self._rank:
            self._attempt(ask)
        allowed = bool(answers and answers[0])
        return as_rank_0(allowed, self._reference) if channel in ("probe", "curvature") else allowed

    # ------------------------------------------------------------------------------------------------- tensors

    def _flat(self, tensor: Tensor) -> Tensor:
        """In C order, whatever the order in memory; a copy only where that or the type differs."""
        tensor = tensor.detach()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        return tensor.reshape(-1).to(self._dtype)

    def _draw_signs(self) -> Tensor:
        signs = torch.empty(self._reference.numel(), dtype=torch.int8)
        for group in range(len(self._groups)):
            members = [layer for layer in self._layers if layer.group == group]
            drawn = draw_signs(sum(layer.size for layer in members), self.settings.sketch_seed, group)
            for layer in members:
                signs[layer.part] = torch.from_numpy(drawn[layer.offset : layer.offset + layer.size])
        return signs.to(self._device)

    # ------------------------------------------------------------------------------------------------- writing

    def _create_run(
        self, attributes: dict[str, Any], overwrite: bool, committed: Mapping[str, int] | None
    ) -> RunWriter:
        if overwrite:
            remove_recording(self.folder)
        sizes = {
            "layer": len(self._layers),
            "group": len(self._groups),
            "sketch": self.settings.sketch_size,
            "parameter": self._reference.numel(),
            "optimizer_group": len(self._optimizer.param_groups),
        }
        not_recorded = self._dropped | self._lacking
        arrays = (*CLOCKS, *HYPERPARAMETERS, *observables.PRODUCTS, *observables.SKETCHES)
        dtype = "f8" if self._dtype == torch.float64 else "f4"
        sized_by_model = ("gradient_sketch", "probe_sketch", "gradient_mean", "gradient_second_moment", "parameters")
        fixed = ("initial_parameters", "final_parameters")
        return RunWriter(
            self.folder,
            sizes,
            [name for name in arrays if name not in not_recorded],
            describe_run(self._model, self._optimizer, self._layers, self._groups, self.settings, attributes)
            | {"not_recorded": not_recorded},
            dict.fromkeys((*sized_by_model, *fixed), dtype),
            committed=committed,
            snapshot_tolerance=self.settings.snapshot_tolerance,
            without_unit=() if self._velocities.defined else UNITS_OF_SGD,
        )

    def _check_name(self, name: str, dim: str) -> None:
        known = growing_dimension(name)
        if not NAME.fullmatch(name):
            why = "it is no plain name"
        elif name in _MEASURED or known not in (None, "step", "evaluation") or name == "evaluation_step":
            why = "the recorder measures it itself"
        elif name in RESERVED:
            why = "it is the name of a dimension or coordinate"
        elif (known or self._names.setdefault(name, dim)) != dim:
            why = f"it belongs to {'log()' if dim == 'evaluation' else 'log_evaluation()'}"
        else:
            return
        raise ValueError(f"cannot log {name!r}: {why}")

    def _hold(self, dim: str, **values: Any) -> None:
        """Hold an event until its step is made; without values there is none."""
        if values:
            self._held.append((dim, {name: np.asarray(value) for name, value in values.items()}))

    def _end_window(self) -> None:
        """Keep the moments of the steps since the last full window, unless the last of them was not made."""
        if self._moments is not None and not self._measuring:
            window = self._moments.take()
            if window is not None and self._allows("window"):
                self._events["window"].append(window)

    def _submit(self) -> None:
        """Hand rows and events to the background thread; waits for its last job, so that memory stays bounded."""
        self._wait()
        self._flushed = time.perf_counter()
        if self._lost:
            return
        blocks = []
        if self._buffer.count:
            if self._awaits_update():
                self._complete_last_row()
            blocks.append(("step", self._buffer.take()))
        for dim, events in self._events.items():
            if events:
                blocks.append((dim, _stack(events)))
                events.clear()
        self._pending = self._thread.submit(self._write, blocks, self._notes())

    def _notes(self) -> dict[str, Any]:
        """Attributes that change while recording."""
        notes = {"recorder_seconds": dict(self._seconds), "not_recorded": self._dropped | self._lacking}
        if self._budget is None:
            return notes
        for text in self._budget.complaints(self._step, time.perf_counter() - self._started, self._seconds):
            self._warn_once(text)
        return notes | {"thinned": self._budget.thinned}

    def _write(self, blocks: list[tuple[str, dict[str, np.ndarray]]], notes: dict[str, Any]) -> None:
        self._writer.note(**notes)
        for dim, block in blocks:
            self._writer.append(dim, {name: values for name, values in block.items() if name not in self._dropped})

    def _finish(self, state: str) -> None:
        self._writer.note(**self._notes())
        self._writer.write_fixed("final_parameters", self._velocities.parameters().cpu().numpy())
        self._writer.close(state)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            started = time.perf_counter()
            self._attempt(pending.result)
            self._spend("waiting", started)

    def _attempt(self, work: Callable[[], object]) -> None:
        """Do a part of the recording; whatever happens, the training goes on."""
        if self._lost:
            return
        try:
            work()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Stop recording, and say why and what is safe."""
        if self._lost:
            return
        with contextlib.suppress(Exception):
            if self._pending is not None:
                self._pending.result()
        reason = f"{type(error).__name__}: {first_line(error)}"
        with contextlib.suppress(Exception):
            self._writer.note(failure=reason)
            self._writer.close("failed")
        why = f"recording to {self.folder} stopped ({reason})"
        safe = f"Steps safe on disk: {self._writer.committed['step']:,} of {self._step:,}."
        if self._rank:
            safe = "Rank 0 says what is safe."
        self._lost = f"{why}. {safe}"
        warnings.warn(f"{why}; the training goes on. {safe}", RuntimeWarning, stacklevel=2)

    def _warn_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            warnings.warn(text, RuntimeWarning, stacklevel=3)


def _stack(events: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Events one after the other along a new last dimension; what one of them lacks is NaN."""
    shapes = {name: values.shape for event in events for name, values in event.items()}
    return {
        name: np.moveaxis(np.stack([event.get(name, np.full(shape, np.nan)) for event in events]), 0, -1)
        for name, shape in shapes.items()
    }


def _spell(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
