"""A recording that is only described: its settings as a command and as a TOML file, and what it would hold and take.

Nothing is started. Bytes are counted from the settings; the size of the model is known for the small built-in ones,
else taken from a recorded run of the same model and data, else asked for. Times are those of such a run with the same
batch, on the computer that it ran on; without one they are not known here, and --dry-run measures them.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thermodl.record.errors import RunError
from thermodl.record.forecast import Size, entry_bytes, model_size, planned_entries
from thermodl.record.settings import RunSettings, SettingsError, make_settings
from thermodl.record.words import command_line

from .catalog import Run
from .series import read_series

# Those that the command has flags for; the others go by --set.
FLAGS = ("model", "data", "data_root", "image_size", "augmentation", "steps", "batch_size", "sampling", "optimizer",
         "learning_rate", "momentum", "weight_decay", "seed", "device")  # fmt: skip
_SAME_MODEL = ("model", "data", "image_size")
_SAME_TIMES = (*_SAME_MODEL, "batch_size", "accumulate", "optimizer", "precision", "device")
_BOOKED_AS = {"step": "steps", "products": "products", "probe": "probes", "curvature": "curvature",
              "per_sample": "per_sample", "window": "moments", "snapshot": "snapshots"}  # fmt: skip
_FEWEST_STEPS = 20
"""of a run whose times mean something"""


@dataclass(frozen=True)
class Forecast:
    """What a recording would hold and take."""

    size: Size
    size_from: str
    """a run's name; `model` for a built-in one, `asked` for numbers that the reader gave"""
    entries: dict[str, int]
    bytes_each: dict[str, int]
    seconds: float = math.nan
    """of the whole run; NaN where no run tells"""
    overhead: float = math.nan
    """recording over plain training"""
    times_from: str = ""
    """a run's name, or empty"""

    @property
    def bytes(self) -> int:
        """All channels, and the parameters at both ends, before compression."""
        growing = sum(self.entries[name] * each for name, each in self.bytes_each.items())
        return growing + 2 * 4 * self.size.parameters


def changes(settings: RunSettings) -> dict[str, Any]:
    """Settings that are not at their defaults, `recorder.probe_every` and the like among them.

    >>> changes(make_settings({"seed": 3, "recorder": {"probe_every": "log:10"}}))
    {'seed': 3, 'recorder.probe_every': 'log:10'}
    """
    given = settings.model_dump()
    # What is left out is filled in by the optimizer that is named.
    default = make_settings({"optimizer": settings.optimizer}).model_dump() | {"optimizer": RunSettings().optimizer}
    plain = {key: value for key, value in given.items() if key != "recorder" and value != default[key]}
    recorder = {
        f"recorder.{key}": value for key, value in given["recorder"].items() if value != default["recorder"][key]
    }
    return plain | recorder


def command(settings: RunSettings, name: str, runs_dir: str) -> str:
    """The command that records it, safe to paste whatever the names are."""
    words = ["thermodl", "record", *_option("--name", name)]
    if runs_dir != "runs":
        words += _option("--runs-dir", runs_dir)
    for key, value in changes(settings).items():
        if key in FLAGS:
            words += _option(f"--{key.replace('_', '-')}", str(value))
        else:
            words += ["--set", f"{key}={_toml_value(value)}"]
    return command_line(words)


def toml(settings: RunSettings, name: str) -> str:
    """The settings file, with what is not at its default."""
    table = changes(settings)
    top = {"name": name, **{key: value for key, value in table.items() if "." not in key}}
    recorder = {key.partition(".")[2]: value for key, value in table.items() if "." in key}
    lines = [f"{key} = {_toml_value(value)}" for key, value in top.items()]
    if recorder:
        lines += ["", "[recorder]", *(f"{key} = {_toml_value(value)}" for key, value in recorder.items())]
    return "\n".join(lines) + "\n"


def read_entry(text: str) -> Any:
    """A cadence as it is typed: a number of steps, a list of steps, or a schedule in words."""
    text = text.strip()
    parts = [part.strip() for part in text.strip("[]").split(",")]
    if all(part.isascii() and part.isdigit() for part in parts):
        numbers = [int(part) for part in parts]
        return numbers if len(parts) > 1 or text.startswith("[") else numbers[0]
    return text


def show_entry(value: Any) -> str:
    """The same the other way round."""
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def settings_of(run: Run) -> RunSettings | None:
    """The settings of a recorded run, if it was recorded by the built-in training and they still are valid."""
    table, recorder = run.attributes.get("settings"), run.attributes.get("recorder")
    if not isinstance(table, Mapping) or not table:
        return None
    try:
        # A run keeps what the recorder was set to in a place of its own.
        return make_settings({**table, **({"recorder": recorder} if recorder else {})})
    except SettingsError:
        return None


def _started(run: Run) -> float:
    started = run.attributes.get("started")
    return float(started) if isinstance(started, int | float) else 0.0


def foretell(settings: RunSettings, runs: Iterable[Run], asked: Size | None = None) -> Forecast | None:
    """What the recording would hold and take; None if nothing tells how large the model is."""
    known = [(run, given) for run in runs if not run.broken and run.steps and (given := settings_of(run))]
    # The newest first.
    known.sort(key=lambda pair: _started(pair[0]), reverse=True)
    alike = [(run, given) for run, given in known if _equal(given, settings, _SAME_MODEL)]
    size, source = model_size(settings), "model"
    if size is None and alike:
        size, source = _recorded_size(alike[0][0]), alike[0][0].id
    if size is None:
        size, source = asked, "asked"
    if size is None:
        return None
    forecast = Forecast(size, source, planned_entries(settings), entry_bytes(settings, size))
    for run, given in alike:
        if _equal(given, settings, _SAME_TIMES) and (times := _times(run, given)):
            plain, each = times
            recording = sum(forecast.entries[name] * each.get(name, 0.0) for name in forecast.entries)
            training = plain * settings.steps
            return Forecast(
                size, source, forecast.entries, forecast.bytes_each, training + recording, recording / training, run.id
            )
    return forecast


def _equal(one: RunSettings, other: RunSettings, names: Sequence[str]) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _recorded_size(run: Run) -> Size:
    layers = run.attributes["layers"]
    return Size(sum(int(layer["size"]) for layer in layers), len(layers), len(run.attributes["groups"]))


def _times(run: Run, settings: RunSettings) -> tuple[float, dict[str, float]] | None:
    """Seconds of a plain step, evaluations included, and of an entry of each channel; None if the run does not tell."""
    spent = run.attributes.get("recorder_seconds")
    if not isinstance(spent, Mapping):
        return None
    try:
        clock = read_series(run.path, "wall_time")
    except RunError:
        return None
    if clock is None or len(clock.values) < _FEWEST_STEPS:
        return None
    steps = len(clock.values)
    done = settings.model_copy(update={"steps": steps})
    entries = {**planned_entries(done), **{key: n for key, n in run.attributes["committed"].items() if n}}
    each = {name: float(spent.get(key, 0.0)) / max(1, entries[name]) for name, key in _BOOKED_AS.items()}
    total = sum(float(value) for value in spent.values())
    plain = (float(clock.values[-1] - clock.values[0]) * steps / (steps - 1) - total) / steps
    return (plain, each) if plain > 0 and all(map(math.isfinite, (plain, *each.values()))) else None


def _option(flag: str, value: str) -> list[str]:
    # A value that begins with a dash would be taken for a flag.
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # TOML escapes as JSON does, and this one character besides.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
