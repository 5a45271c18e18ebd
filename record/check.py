"""The certificate of a recording: is what lies on the disk the optimizer's true trajectory?

`check_recording` looks at everything in a run that can be held against something else, and names every defect with its
place: the schema, the chunks and their checksums, the clocks, values that are not finite, snapshots against sketches,
and the replay. The sketch P is linear, so the sketched motion D_t = P(θ_{t+1} − θ_t) obeys the optimizer's own
recursion with nothing left over but rounding; for SGD

    V_{t+1} = μ_t V_t + (1−ν_t) Pg_t,    D_t = −η_t V_{t+1},    with Nesterov D_t = −η_t (Pg_t + μ_t V_{t+1}).

V_t is taken from the step before, by the second equation, so that errors do not add up and a defect names its step.

What rounding can leave is bounded per step and group, with u the unit roundoff of the parameters' type. The optimizer
rounds θ_{t+1} once, and each of the products and sums that make the update (at most eight, of the size of their
terms, in units of η); V_t brings in the rounding of θ_t, times μη_t/η_{t−1}:

    ‖r_t‖ ≤ s { u [ ‖θ_{t+1}‖ + ρ_t‖θ_t‖ + 8η_t(‖g_t‖ + μ_t‖v_t‖ + λ_t‖θ_t‖) ] + u_s η_t‖g_t‖ + sums },
    ρ_t = μ_t η_t/η_{t−1},

Where inner products and sketches were not due at every step, it is replayed within each stretch of consecutive steps
that have them; P(θ−θ_ref) and the velocity at its start are taken as given.

u_s being that of the stored gradient sketch, and `sums` the float64 roundoff of the m numbers that are folded into one,
2√m u₆₄ of the displacements. s = min(√m, 1 + 6/√(2k)) is how much P may stretch a vector: for m ≤ 1 it only turns
signs. This module knows nothing of torch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from .format import ARRAYS, GROWING, UNITS_OF_SGD, measured_stretches, steps_as_sgd
from .signs import draw_signs
from .snapshots import PERIOD
from .store import read_attributes, run_folder
from .words import counted

Floats = NDArray[np.float64]
# What a training may have, or not, and that may appear late.
_OPTIONAL = {"epoch", "epoch_position", "loss", "clip_factor", "skipped", "layer_skipped"}
_OPTIONAL |= {"chunk_noise_trace", "chunk_count", "train_loss", "train_accuracy", "test_loss", "test_accuracy"}
_BY_MODEL = {"gradient_sketch", "probe_sketch", "parameters", "initial_parameters", "final_parameters"}
_BY_MODEL |= {"gradient_mean", "gradient_second_moment", "parameters_code"}
_MAY_BE_MISSING = {"momentum", "dampening", "weight_decay", "update_squared", "probe_loss", "snapshot_quantum"}
# What has a schedule of its own, and is missing at all other steps.
_SCHEDULED = {
    spec.name for spec in ARRAYS if spec.dims[-1] == "step" and spec.dims[0] in ("layer", "group")
} - _OPTIONAL
# Snapshots are coded; recordings of earlier versions hold them plain.
_CODED = {"parameters_code", "snapshot_quantum", "snapshot_error"}
_BLOCK = 1024
_SHOWN = 5
_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_WIDE = 2.0**-53


@dataclass
class Check:
    """The outcome of one check of a run."""

    name: str
    defects: list[str] = field(default_factory=list)
    """each with its place and number; none if all is well"""
    beyond: int = 0
    """how many more there are than are named one by one"""
    found: str = ""
    """what was looked at and to what precision it holds, or why it could not be looked at"""
    done: bool = True
    """False if there was nothing to check"""
    precision: float | None = None
    """relative residual, where there is one; of updates and windows that which half of them stay below: where next to
    nothing moves, as at the end of a cosine, rounding is larger than the motion"""


def unit_roundoff(attributes: dict[str, Any]) -> float:
    """u of the type that the parameters were trained in."""
    return _ROUNDOFF.get(str(attributes.get("parameter_dtype")), _ROUNDOFF["float32"])


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def check_recording(path: str | Path) -> tuple[dict[str, Any], list[Check]]:
    """Check one run; it may be running still.

    Returns:
        The root attributes, and what each check found.

    Raises:
        RunError: if there is no run, or its root metadata cannot be read.
    """
    attributes = read_attributes(path)
    schema, arrays = _check_schema(run_folder(path) / "run.zarr", attributes)
    chunks, finite, broken = _check_chunks(run_folder(path) / "run.zarr", arrays, attributes)
    run = _Run(attributes, {name: array for name, array in arrays.items() if name not in broken})
    checks = [schema, chunks, finite]
    for name, check in (
        ("clocks", _check_clocks),
        ("snapshots", _check_snapshots),
        ("replay", _check_replay),
    ):
        try:
            checks.append(check(run))
        except _NotThereError as missing:
            checks.append(Check(name, found=str(missing), done=False))
    return attributes, checks


class _NotThereError(Exception):
    """What a check needs was not recorded, or is broken."""


@dataclass
class _Run:
    """The arrays of a run that can be read, clipped to what was committed."""

    attributes: dict[str, Any]
    arrays: dict[str, zarr.Array]

    @property
    def steps(self) -> int:
        return self.attributes["committed"]["step"]

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Whether the inner products and sketches of each step were due: (step,)."""
        return _measured(self.attributes)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Entries [start, stop) of the last dimension, as float64."""
        if name not in self.arrays:
            reason = self.attributes.get("not_recorded", {}).get(name, "it is missing or damaged")
            raise _NotThereError(f"not done, it needs {name}: {reason}")
        dim = _growing(self.arrays[name])
        last = self.attributes["committed"][dim] if dim else self.arrays[name].shape[-1]
        values = self.arrays[name][..., start : last if stop is None else min(stop, last)]
        return np.asarray(values).astype(np.float64)

    def snapshots(self) -> Iterator[Floats]:
        """The parameters (parameter,) of each snapshot, one after the other."""
        array = self.arrays["parameters" if "parameters" in self.arrays else "parameters_code"]
        start, sizes = (
            np.asarray(self.arrays["initial_parameters"][...]),
            [n["size"] for n in self.attributes["layers"]],
        )
        quanta = None if "parameters" in self.arrays else self.read("snapshot_quantum")
        width, bits, block = array.chunks[-1], start.dtype.str.replace("f", "i"), np.empty((0, 0), np.uint32)
        last = before = start
        for n in range(self.attributes["committed"]["snapshot"]):
            if n % width == 0:
                block = np.asarray(array[:, n : n + width])
            code = block[:, n % width]
            if quanta is None:
                yield code.astype(np.float64)
                continue
            if n % PERIOD == 0:
                last = before = start
            whole, quantum = (code >> 1).astype(bits) ^ -(code & 1).astype(bits), np.repeat(quanta[:, n], sizes)
            exact = (2 * last.view(bits) - before.view(bits) + whole).view(start.dtype)
            now = np.where(np.isnan(quantum), exact, (last + quantum * whole).astype(start.dtype))
            last, before = now, last if n % PERIOD else now
            yield now.astype(np.float64)

    @property
    def tolerance(self) -> float:
        """Of coded snapshots; 0 if they are lossless."""
        return self.attributes["recorder"].get("snapshot_tolerance", 0.0)

    @property
    def sizes(self) -> Floats:
        """Parameters of each layer."""
        return np.array([layer["size"] for layer in self.attributes["layers"]], float)

    def coded(self) -> tuple[Floats, Floats]:
        """By the code, the norm of each layer's motion (layer, snapshot), NaN where it is exact, and of its error."""
        if not self.tolerance:
            exact = np.zeros((self.sizes.size, self.attributes["committed"]["snapshot"]))
            return exact + np.nan, exact
        moved = self.read("snapshot_quantum") / (2 * self.tolerance) * np.sqrt(self.sizes)[:, None]
        # Rounded up: the error itself is kept in float32.
        error = self.read("snapshot_error") * (1 + 2.0**-20) * moved
        return moved, np.where(np.isnan(moved), 0.0, error)

    def sketch(self, parameters: np.ndarray) -> Floats:
        """P of a vector of all parameters (parameter,), by the seed in the store: (group, sketch)."""
        out = np.zeros((len(self.attributes["groups"]), self.attributes["recorder"]["sketch_size"]))
        for index, vector in enumerate(self.by_group(parameters)):
            signed = vector * draw_signs(vector.size, self.attributes["recorder"]["sketch_seed"], index)
            rows = -(-signed.size // out.shape[1])
            out[index] = np.pad(signed, (0, rows * out.shape[1] - signed.size)).reshape(rows, -1).sum(0)
        return out

    def by_layer(self, parameters: np.ndarray) -> list[np.ndarray]:
        """The part of each layer."""
        return np.split(parameters, np.cumsum([layer["size"] for layer in self.attributes["layers"]])[:-1])

    def by_group(self, parameters: np.ndarray) -> list[np.ndarray]:
        """The part of each group."""
        parts = list(zip(self.attributes["layers"], self.by_layer(parameters), strict=True))
        return [
            np.concatenate([part for layer, part in parts if layer["group"] == group])
            for group in self.attributes["groups"]
        ]

    def sum_by_group(self, values: np.ndarray) -> Floats:
        """(layer, …) → (group, …)."""
        member = [
            [layer["group"] == group for layer in self.attributes["layers"]] for group in self.attributes["groups"]
        ]
        return np.tensordot(np.array(member, float), values, axes=1)

    def folded(self) -> Floats:
        """m, how many parameters are folded into one number of each group's sketch: (group,), at least 1."""
        sizes = self.sum_by_group(np.array([float(layer["size"]) for layer in self.attributes["layers"]]))
        return np.maximum(np.ceil(sizes / self.attributes["recorder"]["sketch_size"]), 1.0)


def _measured(attributes: dict[str, Any]) -> NDArray[np.bool_]:
    steps = attributes["committed"]["step"]
    due = np.zeros(steps, bool)
    for start, stop in measured_stretches(attributes, steps):
        due[start:stop] = True
    return due


# ------------------------------------------------------------------------------------------------ schema and chunks


def _check_schema(path: Path, attributes: dict[str, Any]) -> tuple[Check, dict[str, zarr.Array]]:
    """Every array of the format has its dimensions, type and unit, and what must be there is there."""
    check, arrays = Check("schema"), {}
    for folder in sorted(entry for entry in path.iterdir() if (entry / "zarr.json").is_file()):
        try:
            arrays[folder.name] = zarr.open_array(LocalStore(folder, read_only=True), mode="r")
        except Exception as error:  # zarr raises what it likes on metadata that makes no sense
            check.defects.append(f"{folder.name} cannot be opened ({type(error).__name__}: {error})")
    committed, double = attributes["committed"], attributes.get("parameter_dtype") == "float64"
    of_sgd = steps_as_sgd(attributes)
    sizes = {
        "layer": len(attributes.get("layers", [])),
        "group": len(attributes.get("groups", [])),
        "sketch": attributes.get("recorder", {}).get("sketch_size"),
        "parameter": sum(layer["size"] for layer in attributes.get("layers", [])),
    }
    for spec in ARRAYS:
        dim = spec.dims[-1]
        if spec.name not in arrays:
            needed = committed[dim] > 0 if dim in GROWING else spec.name == "initial_parameters"
            needed = needed or (spec.name == "final_parameters" and attributes.get("state") == "finished")
            plain = "parameters" in arrays
            needed = needed and not (spec.name == "parameters" or (spec.name in _CODED and plain))
            if needed and spec.name not in _OPTIONAL and spec.name not in attributes.get("not_recorded", {}):
                check.defects.append(f"{spec.name} is missing, and not_recorded gives no reason")
            continue
        array = arrays[spec.name]
        dims = tuple(getattr(array.metadata, "dimension_names", None) or ())
        # A model that is float64 in part only says so of its first layer, and keeps float32.
        dtypes = {spec.dtype, spec.dtype[0] + "8"} if spec.name in _BY_MODEL and double else {spec.dtype}
        units = array.attrs.get("units")
        if dims != spec.dims:
            check.defects.append(f"{spec.name} has dimensions {', '.join(map(str, dims))}, not {', '.join(spec.dims)}")
            del arrays[spec.name]
            continue
        if array.dtype not in [np.dtype(dtype) for dtype in dtypes]:
            check.defects.append(f"{spec.name} is {array.dtype}, not {np.dtype(spec.dtype)}")
        if units != spec.units and not (units is None and spec.name in UNITS_OF_SGD and not of_sgd):
            check.defects.append(f"{spec.name} has the unit {units!r}, not {spec.units!r}")
        wrong = [f"{d} {n}, not {sizes[d]}" for d, n in zip(dims, array.shape, strict=True) if sizes.get(d, n) != n]
        if dim in GROWING and array.shape[-1] < committed[dim]:
            wrong.append(f"{dim} {array.shape[-1]}, but {committed[dim]} were committed")
        if wrong:
            check.defects.append(f"{spec.name} has the wrong length: {'; '.join(wrong)}")
            del arrays[spec.name]
    check.found = f"{counted(len(arrays), 'array')}, {counted(committed['step'], 'step')}"
    return check, arrays


def _check_chunks(
    path: Path, arrays: dict[str, zarr.Array], attributes: dict[str, Any]
) -> tuple[Check, Check, set[str]]:
    """Every chunk with committed entries is there, decodes and agrees with its checksum; its values are finite."""
    chunks, finite, broken = Check("chunks"), Check("finite"), set()
    count, unsigned, missing_loss, named = 0, [], 0, {spec.name for spec in ARRAYS}
    measured = _measured(attributes)
    for name, array in arrays.items():
        signed = any("crc32c" in str(codec.to_dict()["name"]) for codec in getattr(array.metadata, "codecs", ()))
        if not signed:
            unsigned.append(name)
        parts = list(_chunk_parts(array, attributes["committed"]))
        # A writer that is killed while it adds a scalar leaves it without the last of its chunks.
        scalar = name in _OPTIONAL or name not in named
        if scalar and attributes.get("state") == "running" and parts and not (path / name / parts[-1][0]).is_file():
            continue
        for key, part in parts:
            count += 1
            # Without checksums it is an older recording, which left out chunks of nothing but missing values.
            if not (path / name / key).is_file():
                if signed:
                    chunks.defects.append(f"{name}: chunk {key} is missing{_place(array, part)}")
                    broken.add(name)
                continue
            try:
                values = np.asarray(array[part])
            except Exception as error:  # whatever the codecs raise on damaged bytes
                chunks.defects.append(f"{name}: chunk {key} is damaged{_place(array, part)} ({_first_line(error)})")
                broken.add(name)
                continue
            if name == "loss":
                missing_loss += int(np.isnan(values).sum())
            if scalar or name in _MAY_BE_MISSING or values.dtype.kind != "f":
                continue
            bad = ~np.isfinite(values)
            if name in _SCHEDULED:
                bad &= measured[part[-1]]
            if bad.any():
                first = part[-1].start + int(np.flatnonzero(bad.reshape(-1, bad.shape[-1]).any(0))[0])
                dim = _growing(array) or "parameter"
                some = counted(int(bad.sum()), f"value of chunk {key} is", f"values of chunk {key} are")
                finite.defects.append(f"{name}: {some} not finite, from {dim} {first}")
    chunks.found = f"{counted(count, 'chunk')} present{' and decoded' if unsigned else ', every checksum agrees'}"
    if unsigned:
        chunks.found += f"; no checksums in {counted(len(unsigned), 'array')}, recorded by an older version"
    finite.found = "all measured values"
    if not measured.all():
        finite.found += f"; inner products were due at {measured.sum():,} of {counted(measured.size, 'step')}"
    if missing_loss:
        finite.found += f"; {counted(missing_loss, 'step has', 'steps have')} no loss"
    return chunks, finite, broken


def _chunk_parts(array: zarr.Array, committed: dict[str, int]) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Key and place of every chunk that holds committed entries."""
    dim = _growing(array)
    shape = (*array.shape[:-1], committed[dim]) if dim else array.shape
    counts = [range(-(-size // width)) for size, width in zip(shape, array.chunks, strict=True)]
    for place in product(*counts):
        part = [slice(i * w, min((i + 1) * w, n)) for i, w, n in zip(place, array.chunks, shape, strict=True)]
        yield array.metadata.encode_chunk_key(place), tuple(part)


def _growing(array: zarr.Array) -> str | None:
    names = getattr(array.metadata, "dimension_names", None) or ("",)
    return names[-1] if names[-1] in GROWING else None


def _place(array: zarr.Array, part: tuple[slice, ...]) -> str:
    dim = _growing(array)
    return f", {dim}s {part[-1].start} to {part[-1].stop - 1}" if dim else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# ------------------------------------------------------------------------------------------------ what must agree


def _check_clocks(run: _Run) -> Check:
    """Steps are counted one by one, time does not run back, SGD time is the sum over the hyper-parameters."""
    check = Check("clocks")
    step, wall_time = run.read("step"), run.read("wall_time")
    _name_first(check, np.flatnonzero(step != np.arange(step.size)), lambda t: f"row {t} says step {step[t]:.0f}")
    back = np.flatnonzero(np.diff(wall_time) < 0) + 1
    _name_first(check, back, lambda t: f"step {t}: wall time runs back by {wall_time[t - 1] - wall_time[t]:.3g} s")
    check.found = f"{counted(step.size, 'step')} one by one"
    if not steps_as_sgd(run.attributes):  # of which early recordings summed the learning rates all the same
        return check
    sgd_time = run.read("sgd_time")
    eta, mu, nu = (np.nan_to_num(run.read(name)) for name in ("learning_rate", "momentum", "dampening"))
    # The clock is that of the first optimizer group that has a learning rate.
    first = np.argmax(eta != 0, axis=0)
    eta, mu, nu = (values[first, np.arange(values.shape[1])] for values in (eta, mu, nu))
    if sgd_time.size and sgd_time[0] != 0:
        check.defects.append(f"step 0: SGD time starts at {sgd_time[0]:.6g}, not at 0")
    # Without momentum torch leaves the dampening out.
    expected = (eta * (1 - np.where(mu == 0, 0.0, nu)) / (1 - mu))[:-1]
    passed = np.diff(sgd_time)
    # The sum rounds once a step.
    off = ~(np.abs(passed - expected) <= 4 * _WIDE * (sgd_time[1:] + expected)) & np.isfinite(expected)
    _name_first(
        check,
        np.flatnonzero(off),
        lambda t: (
            f"step {t}: SGD time advances by {passed[t]:.6g}, but the logged learning rate, momentum and "
            f"dampening give {expected[t]:.6g}"
        ),
    )
    check.found += "; SGD time is the sum of the logged η(1−ν)/(1−μ)"
    return check


def _check_snapshots(run: _Run) -> Check:
    """Snapshots, initial and final parameters against the sketch and the norms of the same step."""
    check, reference = Check("snapshots"), run.read("initial_parameters")
    squared, displaced = run.read("parameter_squared"), run.read("displacement_squared")
    sketched = "parameter_sketch" in run.arrays
    worst, count, measured = 0.0, 0, run.measured
    steps = measured.size

    def compare(label: str, step: int, parameters: Floats, lacking: Floats | float = 0.0) -> None:
        """`lacking` is the norm of the error of each layer of a coded snapshot."""
        nonlocal worst, count
        if not measured[step]:
            return
        count += 1
        moved, lacking = parameters - reference, np.broadcast_to(lacking, squared.shape[0])
        pairs = [
            ("‖θ‖²", squared[:, step], np.array([np.dot(x, x) for x in run.by_layer(parameters)])),
            ("‖θ−θ_ref‖²", displaced[:, step], np.array([np.dot(x, x) for x in run.by_layer(moved)])),
        ]
        for name, stored, again in pairs:
            error, floor = np.abs(stored - again), (4 * np.sqrt(run.sizes) + 8) * _WIDE * np.maximum(stored, again)
            # |‖x + e‖² − ‖x‖²| ≤ 2‖x + e‖‖e‖ + ‖e‖²
            floor += 2 * np.sqrt(again) * lacking + lacking**2
            for index in np.flatnonzero(~(error <= floor) & np.isfinite(stored)):
                layer = run.attributes["layers"][index]["name"]
                check.defects.append(
                    f"{label}: {name} of {layer} is {again[index]:.9g}, the row of step {step} says {stored[index]:.9g}"
                )
        if sketched:
            stored, again = run.read("parameter_sketch", step, step + 1)[..., 0], run.sketch(moved)
            error = np.linalg.norm(stored - again, axis=-1)
            size = np.array([np.linalg.norm(x) for x in run.by_group(moved)])
            worst = max(worst, float(np.nanmax(np.append(error / size, 0.0))))
            floor = (4 * np.sqrt(run.folded()) + 8) * _WIDE * size
            # P may stretch e by √m.
            floor += np.sqrt(run.folded() * run.sum_by_group(lacking**2))
            for index in np.flatnonzero(error > floor):
                group = run.attributes["groups"][index]
                check.defects.append(
                    f"{label}: P(θ−θ_ref) of {group} differs from the row of step {step} by {error[index]:.3g}, "
                    f"of {size[index]:.3g}"
                )

    if steps and not displaced[:, 0].any():
        compare("initial parameters", 0, reference)
    stored_as = "parameters" if "parameters" in run.arrays else "parameters_code"
    if stored_as in run.arrays and run.attributes["committed"]["snapshot"]:
        moved, lacking = run.coded()
        before = reference
        for n, (step, now) in enumerate(zip(run.read("snapshot_step").astype(int), run.snapshots(), strict=True)):
            check.defects += _off_tolerance(run, n, now - before, moved[:, n], lacking[:, max(0, n - 1) : n + 1])
            if not 0 <= step <= steps:
                check.defects.append(f"snapshot {n} says step {step}, of {steps}")
            elif step < steps:
                compare(f"snapshot {n}", int(step), now, lacking[:, n])
            before = now
    check.found = counted(count, "state agrees with the row of its step", "states agree with the rows of their steps")
    if run.tolerance:
        check.found += f", snapshots to {run.tolerance:g} of the motion between them"
    check.done = count > 0
    if not check.done:
        check.found = "not done: at no step of a snapshot are there inner products"
    if check.done and sketched:
        check.precision = worst
        check.found += f", sketches to {worst:.1e}"
    return check


def _off_tolerance(run: _Run, n: int, motion: Floats, moved: Floats, lacking: Floats) -> Iterator[str]:
    """Layers of a coded snapshot whose error is above the tolerance, or measured by a motion that is not theirs.

    Args:
        run: the run.
        n: number of the snapshot.
        motion: (parameter,) from the snapshot before to this, as decoded.
        moved: (layer,) norm of the motion by the code.
        lacking: (layer, 1 or 2) norm of the error of the snapshot before, and of this.
    """
    again = np.array([np.linalg.norm(x) for x in run.by_layer(motion)])
    for layer, name in enumerate(layer["name"] for layer in run.attributes["layers"]):
        if not (np.isnan(moved[layer]) or lacking[layer, -1] <= run.tolerance * moved[layer] * (1 + 2.0**-19)):
            ratio = lacking[layer, -1] / moved[layer]
            yield f"snapshot {n}: the rms error of {name} is {ratio:.3g} of its motion, the tolerance {run.tolerance:g}"
        elif abs(again[layer] - moved[layer]) > lacking[layer].sum() + 1e-9 * moved[layer]:
            yield f"snapshot {n}: {name} is coded for a motion of {moved[layer]:.6g}, and moved by {again[layer]:.6g}"


def _name_first(check: Check, places: np.ndarray, describe: Callable[[int], str]) -> None:
    """A defect per place, the first few in full."""
    check.defects += [describe(int(place)) for place in places[:_SHOWN]]
    if len(places) > _SHOWN:
        check.defects.append(f"… and {len(places) - _SHOWN} more, the last at {places[-1]}")
        check.beyond = len(places) - _SHOWN - 1


# ------------------------------------------------------------------------------------------------ replay


def _check_replay(run: _Run) -> Check:
    """D_t against the optimizer's recursion, for every step and group."""
    check, optimizer = Check("replay"), run.attributes.get("optimizer", {})
    if not steps_as_sgd(run.attributes):
        name = optimizer.get("class", "an unknown optimizer")
        raise _NotThereError(f"not done: the recursion of {name} needs more than the gradient")
    if optimizer["weight_decay_kind"] != "coupled":
        raise _NotThereError("not done: the recursion is not defined where the weight decay is not in the gradient")
    for name in ("parameter_sketch", "gradient_sketch", "parameter_squared", "gradient_squared", "velocity_squared"):
        run.read(name, 0, 0)
    hyper = np.stack([run.read(name) for name in ("learning_rate", "momentum", "dampening", "weight_decay")])
    if optimizer["nesterov"] and hyper.shape[1] > 1:
        raise _NotThereError("not done: which of the optimizer's groups have Nesterov momentum is not recorded")
    groups, mixed = run.attributes["groups"], []
    owner = np.zeros(len(groups), int)
    for index, group in enumerate(groups):
        owners = {layer["optimizer_group"] for layer in run.attributes["layers"] if layer["group"] == group}
        owner[index] = min(owners)
        if any(np.any(hyper[:, min(owners)] != hyper[:, other]) for other in owners):
            mixed.append(index)
    ends = _Ends(run)
    # An update has both its ends.
    whole = ends.measured[:-1] & ends.measured[1:]
    left_out, checked, worst, worst_floor, places, relatives = 0, 0, 0.0, 0.0, [], []
    for start in range(0, ends.updates, _BLOCK):
        stop = min(start + _BLOCK, ends.updates)
        first = max(start - 2, 0)
        residual, floor, moved = _replay(run, ends, hyper[:, owner], first, stop, bool(optimizer["nesterov"]))
        residual, floor, moved = (values[:, start - first :] for values in (residual, floor, moved))
        residual[mixed] = np.nan
        defined = np.isfinite(residual)
        left_out += int((~defined & whole[start:stop]).sum()) - len(mixed) * int(whole[start:stop].sum())
        checked += int(defined.sum())
        places += [(start + t, g, residual[g, t], floor[g, t]) for g, t in np.argwhere(defined & (residual > floor))]
        relative = np.where(defined & (moved > 0), residual / moved, np.nan)
        relatives.append(relative[np.isfinite(relative)])
        if np.isfinite(relative).any():
            at = np.nanargmax(relative)
            if relative.flat[at] > worst:
                worst, worst_floor = float(relative.flat[at]), float((floor / moved).flat[at])
    places.sort(key=lambda place: place[0])
    check.defects = [
        f"step {t}: the motion of {groups[g]} misses the recursion by {r:.3g}, rounding allows {f:.3g}"
        for t, g, r, f in places[:_SHOWN]
    ]
    if len(places) > _SHOWN:
        check.defects.append(f"… and {len(places) - _SHOWN} more, the last at step {places[-1][0]}")
        check.beyond = len(places) - _SHOWN - 1
    check.done = checked > 0
    known = np.concatenate([np.zeros(0), *relatives])
    check.precision = float(np.median(known)) if known.size else worst
    check.found = (
        f"{counted(checked, 'update of a group obeys', 'updates of groups obey')} the recursion; half of the residuals "
        f"are below {check.precision:.1e} of the update, the largest is {worst:.1e}, where rounding allows "
        f"{worst_floor:.1e}"
        if checked
        else "not done: no step has what the recursion needs"
    )
    stretches = measured_stretches(run.attributes, run.steps)
    if checked and not whole.all():
        check.found += (
            f"; within {counted(len(stretches), 'stretch', 'stretches')} of consecutive steps, "
            "P(θ−θ_ref) at the start of each taken as given"
        )
    if mixed:
        check.found += f"; left out: {', '.join(groups[g] for g in mixed)}, of several optimizer groups"
    if left_out:
        check.found += f"; {left_out} left out, where the velocity before is not known or a value is not finite"
    return check


class _Ends:
    """Rows of the parameters, to which the final parameters add one where the recording is finished."""

    def __init__(self, run: _Run):
        self._run = run
        self._final: tuple[Floats, Floats] | None = None
        # A training that was broken off may have been in the middle of a step.
        complete = run.attributes.get("state") == "finished"
        if complete and {"final_parameters", "initial_parameters"} <= set(run.arrays) and run.steps:
            final = run.read("final_parameters")
            squares = np.array([np.dot(x, x) for x in run.by_layer(final)])
            self._final = run.sketch(final - run.read("initial_parameters")), squares
        self.updates = max(run.steps - (self._final is None), 0)
        self.measured = np.append(run.measured, True)[: self.updates + 1]
        """whether each row has inner products and sketches"""

    def read(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """P(θ−θ_ref) (group, sketch, n) and ‖θ‖² (layer, n) of the rows [start, stop)."""
        sketch, squares = (self._run.read(name, start, stop) for name in ("parameter_sketch", "parameter_squared"))
        if self._final is not None and stop > self._run.steps:
            sketch = np.concatenate([sketch, self._final[0][..., None]], axis=-1)
            squares = np.concatenate([squares, self._final[1][..., None]], axis=-1)
        return sketch, squares


def _replay(
    run: _Run, ends: _Ends, hyper: Floats, first: int, stop: int, nesterov: bool
) -> tuple[Floats, Floats, Floats]:
    """‖r_t‖, its rounding floor and ‖D_t‖ of the updates [first, stop), (group, n); NaN where r is not defined."""
    theta, theta_squared = ends.read(first, stop + 1)
    g = run.read("gradient_sketch", first, stop)
    g_layer, v_layer = run.read("gradient_squared", first, stop), run.read("velocity_squared", first, stop)
    eta, mu, nu, decay = hyper[..., first:stop]
    nu = np.where(mu == 0, 0.0, nu)
    d = np.diff(theta)

    before = np.full((2, *eta.shape), np.nan)
    before[:, :, 1:] = eta[:, :-1], mu[:, :-1]
    eta_before, mu_before = before
    velocity = np.full_like(d, np.nan)
    velocity[..., 1:] = -d[..., :-1] / eta[:, None, :-1]
    if nesterov:
        velocity[..., 1:] = (velocity[..., 1:] - g[..., :-1]) / mu[:, None, :-1]
    # A step without learning rate does not show its velocity.
    velocity = np.where(np.isfinite(velocity).all(axis=1, keepdims=True), velocity, np.nan)
    carry = np.where(mu == 0, 0.0, mu * eta / eta_before) * (mu / mu_before if nesterov else 1.0)
    fresh = run.sum_by_group(v_layer) == 0
    keep = np.where(fresh & (mu != 0), 1.0, 1 - nu)
    none_before = fresh | (mu == 0)
    velocity = np.where(none_before[:, None], 0.0, velocity)
    carry = np.where(none_before, 0.0, carry)

    # Where a layer had no gradient torch leaves it alone, and its first one fills the buffer undamped: sums over the
    # layers of a group cannot tell that, so such steps are not defined, nor those after them.
    odd = (g_layer == 0) & (v_layer > 0)
    some = run.sum_by_group(((v_layer == 0) & (g_layer > 0)).astype(float)) > 0
    odd = ((run.sum_by_group(odd.astype(float)) > 0) | (some & ~fresh & (nu != 0))) & (mu != 0)
    odd[:, 1:] |= odd[:, :-1] & (mu[:, 1:] != 0)
    # With dampening a buffer that starts at zero later than step 0 is a first gradient or a chance; only μ = 0 is sure.
    odd |= fresh & (mu != 0) & (nu != 0) & (np.arange(first, stop) > 0)
    # A velocity that the optimizer kept from another time: it began to have momentum at this step.
    odd |= (mu != 0) & (mu_before == 0) & ~fresh

    next_velocity = mu[:, None] * velocity + keep[:, None] * g
    direction = g + mu[:, None] * next_velocity if nesterov else next_velocity
    residual = np.linalg.norm(d + eta[:, None] * direction, axis=1)
    residual[odd] = np.nan

    u = unit_roundoff(run.attributes)
    stored = _ROUNDOFF[str(run.arrays["gradient_sketch"].dtype)]
    norms = np.sqrt(run.sum_by_group(theta_squared))
    g_norm, v_norm = (np.sqrt(run.sum_by_group(values)) for values in (g_layer, v_layer))
    terms = 8 * eta * (g_norm + mu * v_norm + np.nan_to_num(decay) * norms[:, :-1])
    g_before = np.nan_to_num(np.concatenate([g_norm[:, :1], g_norm[:, :-1]], axis=1)) if nesterov else 0.0
    rounding = u * (norms[:, 1:] + carry * norms[:, :-1] + terms)
    rounding = rounding + (u * 8 + stored) * eta * (g_norm * (2 if nesterov else 1) + mu * g_before)
    folded = run.folded()[:, None]
    moved = np.linalg.norm(theta, axis=1)
    # Before the first step of a stretch nothing is known, and nothing needed where there is no velocity.
    previous = np.nan_to_num(np.concatenate([moved[:, :1], moved[:, :-2]], axis=1))
    sums = moved[:, 1:] + (1 + carry) * moved[:, :-1] + carry * previous + 3 * eta * g_norm
    width = theta.shape[1]
    stretch = np.minimum(np.sqrt(folded), 1 + 6 / np.sqrt(2 * width))
    floor = stretch * rounding + 2 * (np.sqrt(folded) + 1) * _WIDE * sums
    return residual, floor, np.linalg.norm(d, axis=1)
