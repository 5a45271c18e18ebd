"""The recorder: two lines in any PyTorch loop, measuring at the optimizer's own pre- and post-step hooks.

There the gradient is unscaled, accumulated, reduced and clipped, the update is exact, and steps that a GradScaler
skips do not appear. Every step fills one row of a buffer on the device; a flush copies the buffer to the host once,
and a background thread writes it. Recording does not disturb: weights are bit for bit those of the plain loop.
"""

import contextlib
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import observables
from .buffer import CLOCKS, HYPERPARAMETERS, StepBuffer
from .layers import Layer, decay_kind, find_layers, keeps_velocity, momentum_of
from .moments import MomentWindow
from .probe import probe_gradient
from .schedule import compile_schedule
from .settings import RecorderSettings
from .signs import draw_signs
from .store import GROWING, NAME, RunWriter, growing_dimension, remove_recording

_MEASURED = {*CLOCKS, *HYPERPARAMETERS, *observables.PRODUCTS, *observables.SKETCHES}
_PROBE_STREAM = 2**32
_STRETCH = 256
_SPENT: tuple[str, ...] = ("steps", "probes", "moments", "snapshots", "waiting")
_LARGE = 2**18
"""parameters from which a second thread is worth waking at every step"""


class Recorder:
    """Record a training run.

    Use it as a context manager around the loop, or call `close` at the end; a run that ends by an exception is marked
    as failed (by Ctrl-C as stopped). If the store can no longer be written, one warning says how much is safe, and
    the training goes on unrecorded.

    Args:
        model: the network in training.
        optimizer: any torch optimizer; what is not defined for it (the velocity, for all but SGD) is not recorded,
            and the attribute `not_recorded` says so.
        folder: the run folder, made if missing; `run.zarr` is written inside.
        probe: a function without arguments that draws its own mini-batch, independent of the optimizer step's, of the
            same size and drawn in the same way, and returns its loss. Without it there is no noise temperature.
        settings: cadence and size of the channels.
        attributes: JSON-able facts to keep with the run, such as `sampling`, `batch_size`, `train_size`.
        overwrite: replace a recording that is already there.

    Raises:
        RunError: if the folder holds a recording and `overwrite` is false or cannot be written, or there is nothing
            to record.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        folder: str | Path,
        *,
        probe: Callable[[], Tensor] | None = None,
        settings: RecorderSettings | None = None,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ):
        self.folder = Path(folder)
        self.settings = settings or RecorderSettings()
        self._model, self._optimizer = model, optimizer
        self._probe = probe if self.settings.probe_every else None
        self._probe_due = compile_schedule(self.settings.probe_every)
        self._snapshot_due = compile_schedule(self.settings.snapshot_every)
        self._layers, self._groups = find_layers(model, optimizer)
        self._decay = decay_kind(optimizer)
        self._has_velocity = isinstance(optimizer, torch.optim.SGD)

        self._device = self._layers[0].parameter.device
        double = all(layer.parameter.dtype == torch.float64 for layer in self._layers)
        self._dtype = torch.float64 if double else torch.float32
        wide = torch.float32 if self._device.type == "mps" else torch.float64
        self._reference = self._flatten_parameters()
        groups = optimizer.param_groups
        all_keep = all(keeps_velocity(optimizer, group) for group in groups)
        self._previous = None if all_keep else self._reference.clone()
        self._signs = self._draw_signs()
        window = self.settings.moments_window
        self._moments = MomentWindow(self._reference, window) if window else None
        self._layout = np.array([(x.start, x.parameter.numel(), x.group, x.offset) for x in self._layers])
        # The sums run in stretches of the sketch's width; where it is switched off it is made all the same, not kept.
        self._width = self.settings.sketch_size or _STRETCH
        self._buffer = StepBuffer(len(self._layers), len(self._groups), self._width, self._device, wide)
        self._wide = wide

        self._step, self._sgd_time = 0, 0.0
        self._seconds: dict[str, float] = dict.fromkeys(_SPENT, 0.0)
        self._rates: list[float] = []
        self._measuring = False
        self._lost = self._closed = False
        self._started = self._flushed = time.perf_counter()
        self._events: dict[str, list[dict[str, np.ndarray]]] = {dim: [] for dim in GROWING[1:]}
        self._pending: Future[None] | None = None
        if overwrite:
            remove_recording(self.folder)
        self._writer = self._create_run(dict(attributes or {}))
        self._thread = ThreadPoolExecutor(1, "thermodl-writer")
        large = self._reference.numel() >= _LARGE and torch.get_num_threads() > 1
        self._helper = ThreadPoolExecutor(1, "thermodl-measure") if large else None
        self._hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._before_step()),
            optimizer.register_step_post_hook(lambda *_: self._after_step()),
        ]

    # ------------------------------------------------------------------------------------------------- public

    @property
    def step(self) -> int:
        """Number of optimizer steps seen."""
        return self._step

    def log(self, **values: float | Tensor) -> None:
        """Attach scalars to the step just made: `loss`, `epoch`, `epoch_position`, `clip_factor`, or one's own.

        A tensor is copied on its device, without waiting for it.

        Raises:
            ValueError: if the recorder measures the name itself, it is no plain name, or no step was made yet.
        """
        if self._lost or self._closed:
            return
        if self._buffer.count == 0:
            raise ValueError("log() belongs after optimizer.step(): no step was made since the recorder started")
        for name, value in values.items():
            _check_log_name(name, "step")
            self._buffer.put_scalar(name, value)

    def log_evaluation(self, **values: float) -> None:
        """Keep `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`, or one's own, of the present parameters.

        Raises:
            ValueError: if the name means something else in the run format, or is no plain name.
        """
        for name in values:
            _check_log_name(name, "evaluation")
        self._keep("evaluation", evaluation_step=self._step, **values)

    def flush(self) -> None:
        """Hand what is in memory to the writer and wait until it is committed."""
        self._submit()
        self._wait()

    def close(self, state: str = "finished") -> None:
        """Write everything, mark the run, and let go of the optimizer; a second call does nothing."""
        if self._closed:
            return
        if self._moments is not None:
            self._keep("window", **(self._moments.take() or {}))
        self._closed = True
        for hook in self._hooks:
            hook.remove()
        self.flush()
        final = self._flatten_parameters().cpu().numpy()
        self._attempt(lambda: self._finish(final, state))
        self._thread.shutdown()
        if self._helper is not None:
            self._helper.shutdown()

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
        late = time.perf_counter() - self._flushed > self.settings.flush_seconds
        if self._buffer.count == self._buffer.capacity or (late and self._buffer.count):
            self._submit()
        if self._lost:
            return
        started = time.perf_counter()
        self._note_clocks()
        now = [self._now(layer) for layer in self._layers]
        if self._previous is None and any(layer.velocity is None for layer in now):
            self._previous = self._flatten_parameters()
        products, sketches = self._buffer.row()
        observables.measure(
            now, self._layout, self._reference, self._previous, self._signs, products, sketches, self._helper
        )
        # A step that failed half-way left its measurement here, but no row.
        if self._buffer.count and self._previous is not None and not self._measuring:
            self._buffer.complete_last_row(products[-1])
        self._rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        started = self._spend("steps", started)
        if self._probe is not None and self._probe_due(self._step):
            self._record_probe(self._probe, now)
            started = self._spend("probes", started)
        if self._moments is not None:
            full = self._moments.add(now, [layer.part for layer in self._layers], self._step)
            self._keep("window", **(full or {}))
            started = self._spend("moments", started)
        if self._snapshot_due(self._step):
            self._keep("snapshot", snapshot_step=self._step, parameters=self._flatten_parameters().cpu().numpy())
            self._spend("snapshots", started)
        self._measuring = True

    def _after_step(self) -> None:
        if self._lost or not self._measuring:
            return
        self._buffer.count += 1
        self._step += 1
        self._measuring = False

    def _spend(self, what: str, since: float) -> float:
        """Book the time since then, and give the present one."""
        now = time.perf_counter()
        self._seconds[what] += now - since
        return now

    def _now(self, layer: Layer) -> observables.Now:
        """What a layer holds before a step. v_t is the momentum buffer, or without momentum −Δθ/η of the last step."""
        group = self._optimizer.param_groups[layer.optimizer_group]
        parameter, gradient, velocity, per_update = self._flat(layer.parameter), layer.parameter.grad, None, 0.0
        if keeps_velocity(self._optimizer, group):
            buffer = self._optimizer.state.get(layer.parameter, {}).get("momentum_buffer")
            velocity = torch.zeros_like(parameter) if buffer is None else self._flat(buffer)
        elif self._has_velocity and self._step and self._rates[layer.optimizer_group]:
            per_update = -1 / self._rates[layer.optimizer_group]
        sign, decay = -1.0 if group.get("maximize") else 1.0, 0.0
        if gradient is not None:
            gradient = self._flat(gradient)
            # A layer without gradient is not decayed either.
            decay = float(group.get("weight_decay", 0.0)) if self._decay == "coupled" else 0.0
        return observables.Now(parameter, gradient, sign, decay, velocity, per_update)

    def _complete_last_row(self, previous: Tensor) -> None:
        """The update of the last step, where no further step will tell it in time."""
        updates = self._flatten_parameters().to(self._wide) - previous
        squares = [torch.dot(updates[layer.part], updates[layer.part]) for layer in self._layers]
        self._buffer.complete_last_row(torch.stack(squares))

    def _note_clocks(self) -> None:
        groups = self._optimizer.param_groups
        hyperparameters = [
            [float(g["lr"]), momentum_of(g), float(g.get("dampening", np.nan)), float(g.get("weight_decay", np.nan))]
            for g in groups
        ]
        self._buffer.put_clocks((self._step, self._sgd_time, time.perf_counter() - self._started), hyperparameters)
        learning_rate, momentum, dampening, _ = np.nan_to_num(hyperparameters[0])
        self._sgd_time += learning_rate * (1 - dampening) / (1 - momentum)

    def _record_probe(self, probe: Callable[[], Tensor], now: list[observables.Now]) -> None:
        parameters = [layer.parameter for layer in self._layers]
        seed = _PROBE_STREAM + self._step
        loss, gradients = probe_gradient(self._model, parameters, probe, seed)
        others = [None if gradient is None else self._flat(gradient) for gradient in gradients]
        products = torch.zeros(
            len(observables.PROBE_PRODUCTS), len(self._layers), dtype=self._wide, device=self._device
        )
        folded = torch.zeros(len(self._groups), self._width, dtype=self._wide, device=self._device)
        observables.measure_probe(now, others, self._layout, self._reference, self._signs, products, folded)
        values = dict(zip(observables.PROBE_PRODUCTS, products.cpu().numpy(), strict=True))
        self._keep("probe", probe_step=self._step, probe_loss=float(loss), **values, probe_sketch=folded.cpu().numpy())

    # ------------------------------------------------------------------------------------------------- tensors

    def _flat(self, tensor: Tensor) -> Tensor:
        return tensor.detach().reshape(-1).to(self._dtype)

    def _flatten_parameters(self) -> Tensor:
        return torch.cat([self._flat(layer.parameter) for layer in self._layers])

    def _draw_signs(self) -> Tensor:
        signs = torch.empty(self._reference.numel(), dtype=torch.int8)
        for group in range(len(self._groups)):
            members = [layer for layer in self._layers if layer.group == group]
            drawn = draw_signs(sum(layer.parameter.numel() for layer in members), self.settings.sketch_seed, group)
            for layer in members:
                end = layer.offset + layer.parameter.numel()
                signs[layer.part] = torch.from_numpy(drawn[layer.offset : end])
        return signs.to(self._device)

    # ------------------------------------------------------------------------------------------------- writing

    def _create_run(self, attributes: dict[str, Any]) -> RunWriter:
        sizes = {
            "layer": len(self._layers),
            "group": len(self._groups),
            "sketch": self.settings.sketch_size,
            "parameter": self._reference.numel(),
            "optimizer_group": len(self._optimizer.param_groups),
        }
        not_recorded = self._not_recorded()
        arrays = (*CLOCKS, *HYPERPARAMETERS, *observables.PRODUCTS, *observables.SKETCHES)
        dtype = "f8" if self._dtype == torch.float64 else "f4"
        sized_by_model = ("gradient_sketch", "probe_sketch", "gradient_mean", "gradient_second_moment", "parameters")
        fixed = ("initial_parameters", "final_parameters")
        writer = RunWriter(
            self.folder,
            sizes,
            [name for name in arrays if name not in not_recorded],
            {
                "run_id": "",
                **attributes,
                "layers": [
                    {
                        "name": layer.name,
                        "shape": list(layer.parameter.shape),
                        "size": layer.parameter.numel(),
                        "group": self._groups[layer.group],
                        "optimizer_group": layer.optimizer_group,
                    }
                    for layer in self._layers
                ],
                "groups": self._groups,
                "optimizer": {
                    "class": type(self._optimizer).__name__,
                    "weight_decay_kind": self._decay,
                    "nesterov": any(g.get("nesterov", False) for g in self._optimizer.param_groups),
                },
                "recorder": self.settings.model_dump(),
                "parameter_dtype": str(self._layers[0].parameter.dtype).removeprefix("torch."),
                "not_recorded": not_recorded,
                "provenance": _provenance(),
            },
            dict.fromkeys((*sized_by_model, *fixed), dtype),
        )
        writer.write_fixed("initial_parameters", self._reference.cpu().numpy())
        return writer

    def _not_recorded(self) -> dict[str, str]:
        reasons = {}
        if not self._has_velocity:
            reason = f"the heavy-ball velocity is not defined for {type(self._optimizer).__name__}"
            reasons |= dict.fromkeys(observables.VELOCITY, reason)
        if self._previous is None:
            reasons["update_squared"] = "the velocity tells it: Δθ = −η v_{t+1}, with Nesterov −η(g + μ v_{t+1})"
        if self._moments is None:
            names = ("gradient_mean", "gradient_second_moment")
            reasons |= dict.fromkeys(names, "moments_window is 0")
        if not self.settings.sketch_size:
            reasons |= dict.fromkeys((*observables.SKETCHES, "probe_sketch"), "sketch_size is 0")
        if self._probe is None:
            reasons |= dict.fromkeys(observables.PROBE_PRODUCTS, "there is no probe")
        return reasons

    def _keep(self, dim: str, **values: Any) -> None:
        if values and not self._lost and not self._closed:
            self._events[dim].append({name: np.asarray(value) for name, value in values.items()})

    def _submit(self) -> None:
        """Hand rows and events to the background thread; waits for its last job, so that memory stays bounded."""
        self._wait()
        self._flushed = time.perf_counter()
        if self._lost:
            return
        blocks = []
        if self._buffer.count:
            if self._previous is not None:
                self._complete_last_row(self._previous)
            blocks.append(("step", self._buffer.take()))
        for dim, events in self._events.items():
            if events:
                blocks.append((dim, _stack(events)))
                events.clear()
        self._pending = self._thread.submit(self._write, blocks, dict(self._seconds))

    def _write(self, blocks: list[tuple[str, dict[str, np.ndarray]]], seconds: dict[str, float]) -> None:
        self._writer.note(recorder_seconds=seconds)
        dropped = self._not_recorded()
        for dim, block in blocks:
            self._writer.append(dim, {name: values for name, values in block.items() if name not in dropped})

    def _finish(self, final: np.ndarray, state: str) -> None:
        self._writer.note(recorder_seconds=self._seconds)
        self._writer.write_fixed("final_parameters", final)
        self._writer.close(state)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            started = time.perf_counter()
            self._attempt(pending.result)
            self._spend("waiting", started)

    def _attempt(self, write: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            write()
        except Exception as error:  # whatever happens to the store, the training goes on
            self._lost = True
            with contextlib.suppress(Exception):
                self._writer.close("failed")
            warnings.warn(
                f"recording to {self.folder} stopped ({type(error).__name__}: {error}); the training goes on. "
                f"Safe are {self._writer.committed['step']} steps of {self._step}.",
                RuntimeWarning,
                stacklevel=2,
            )


def _check_log_name(name: str, dim: str) -> None:
    known = growing_dimension(name)
    if name in _MEASURED or known not in (None, dim) or not NAME.fullmatch(name):
        why = "it belongs to log_evaluation()" if known == "evaluation" else "the recorder measures it itself"
        raise ValueError(f"cannot log {name!r}: {why if NAME.fullmatch(name) else 'it is no plain name'}")


def _stack(events: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Events one after the other along a new last dimension; what one of them lacks is NaN."""
    shapes = {name: values.shape for event in events for name, values in event.items()}
    return {
        name: np.stack([event.get(name, np.full(shape, np.nan)) for event in events], axis=-1)
        for name, shape in shapes.items()
    }


def _provenance() -> dict[str, Any]:
    versions = {}
    for package in ("thermodl", "torch", "numpy", "zarr"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {"command": command, "python": platform.python_version(), "system": platform.system(), **versions}
