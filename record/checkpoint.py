"""The checkpoint of the built-in training: all that decides the rest of a run, beside its recording.

A run that goes on from it is bit for bit the run that was not interrupted: weights and recorded arrays, but for the
wall time. The file is written beside its place and renamed into it, after the recorder has committed the steps that it
counts; so it never tells of more than the recording holds.
"""

import contextlib
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from .errors import RunError, first_line
from .format import CHECKPOINT
from .settings import RunSettings, name_differences
from .store import SILENT_AFTER_SECONDS, read_attributes, run_state
from .words import counted


class Stateful(Protocol):
    """What can give its state and take it again, as modules and optimizers do."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


_LATER = ("singles", "single_changes")
"""streams that a checkpoint may lack, since it may be older"""


class Streams:
    """The random numbers of a training: torch's own, and generators by name."""

    def __init__(self, **generators: torch.Generator):
        self._generators = generators

    def state_dict(self) -> dict[str, Any]:
        """All states, as tensors."""
        states = {name: generator.get_state() for name, generator in self._generators.items()}
        return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all(), "generators": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        torch.set_rng_state(state["torch"])
        torch.cuda.set_rng_state_all(state["cuda"])
        for name, generator in self._generators.items():
            if name in state["generators"] or name not in _LATER:
                generator.set_state(state["generators"][name])


def write_checkpoint(folder: Path, run_id: str, recorder: dict[str, Any], parts: dict[str, Stateful]) -> None:
    """Keep the states of the parts; where that fails a warning says so, and the checkpoint before stays."""
    path = folder / CHECKPOINT
    beside = path.with_suffix(".tmp")
    states = {name: part.state_dict() for name, part in parts.items()}
    try:
        with beside.open("wb") as file:
            torch.save({"run_id": run_id, "recorder": recorder, **states}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch, where the disk is full
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        warnings.warn(
            f"no checkpoint of step {recorder['step']} ({first_line(error)}); the training goes on",
            RuntimeWarning,
            stacklevel=2,
        )


def read_checkpoint(folder: Path, settings: RunSettings) -> dict[str, Any] | None:
    """What a run of these settings goes on from; None if it is finished.

    Raises:
        RunError: if there is no such run or no checkpoint, the run has other settings, or it is being recorded.
    """
    attributes = read_attributes(folder)
    state, path, run_id = run_state(attributes), folder / CHECKPOINT, settings.run_id()
    if "settings" not in attributes:
        raise RunError(f"{folder} was recorded in a loop of its own, which thermodl record cannot go on with")
    if attributes.get("run_id") != run_id:
        raise RunError(
            f"{folder} has other settings, and cannot be resumed with these; give those it was begun with: "
            f"{name_differences(attributes, settings)}"
        )
    if state == "finished":
        return None
    if state == "running":
        raise RunError(
            f"{folder} is being recorded, and cannot be resumed; stop that recording first (one that has crashed "
            f"counts as stopped {SILENT_AFTER_SECONDS:.0f} s after its last sign of life)"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(
            f"{folder} has no checkpoint to resume from (recorded: {counted(attributes['committed']['step'], 'step')}, "
            f"and checkpoint_every is {settings.checkpoint_every!r}); record it again with --overwrite"
        ) from None
    except Exception as error:  # whatever unpickling says to a file that is none
        raise RunError(f"{path} is no checkpoint, or damaged ({first_line(error)}); use --overwrite") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("run_id") != run_id:
        raise RunError(f"{path} is no checkpoint of this run; record it again with --overwrite")
    return checkpoint


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C is only noted, for the loop to ask after each step; a second one acts at once.

    So is SIGTERM, by which batch systems stop a job.
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where Ctrl-C does not arrive
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
