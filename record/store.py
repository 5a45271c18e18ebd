"""The run format: one Zarr v3 group per run, written once, readable with plain zarr or xarray.

A run is the folder `runs/<name>/`; its recording is the group `run.zarr` inside. Every array has named dimensions
with the growing one (`step`, `probe`, `curvature`, `per_sample`, `window`, `snapshot`, `evaluation`) last, so that a
time series is contiguous. Missing values are NaN (-1 for integers). The commit protocol:

1. the writer grows the arrays ahead of the data,
2. a flush writes whole chunks, each with its checksum and replaced atomically by the file system,
3. then the root attribute `committed` says how many entries of each growing dimension are complete.

Whatever lies beyond `committed` may be half written; `open_run` never shows it. `docs/format.md` is the
specification, and a test holds it against the table `ARRAYS`. This module knows nothing of torch.
"""

import contextlib
import json
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from . import snapshots
from .chunk_files import UNREADABLE, read_block
from .schedule import due_stretches

if TYPE_CHECKING:
    import dask.array

FORMAT = "thermodl-run"
FORMAT_VERSION = 1
CHECKPOINT = "checkpoint.pt"
"""beside `run.zarr`; what `thermodl record --resume` goes on from"""
GROWING = ("step", "probe", "curvature", "per_sample", "window", "snapshot", "evaluation")
ALL_GROUPS = "all"
"""what analyses call all layers together; no group of layers has this name"""
SILENT_AFTER_SECONDS = 120.0
BLOCK_BYTES = 2**26
"""of whole time series that are read at a time"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CHUNK_BYTES = 2**20
_ROW_BYTES = 2**15
_STEPS_PER_CHUNK = 256
_ROOT_BYTES = 2**14
_FORMS = {
    "layers": "a list of tables with name, group, size and optimizer_group",
    "groups": "a list of names",
    "optimizer": "a table",
    "recorder": "a table",
    "not_recorded": "a table",
}
"""of attributes that readers rely on"""
_STRIDE = (64, 1024)
"""entries by which arrays are grown ahead, of events and of steps"""


class UserError(Exception):
    """A mistake that the user can mend; the command line prints it without a traceback and exits with 2."""


class RunError(UserError):
    """A run that cannot be read or must not be written."""


class LostError(UserError):
    """A recording that stopped while its training went on; what was committed before is safe."""


def first_line(error: Exception) -> str:
    """The first line of what an error says; libraries add whole pages."""
    return str(error).partition("\n")[0]


@dataclass(frozen=True)
class Array:
    """One array of the format: its name, named dimensions (the growing one last), type, unit and description."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    long_name_zh: str


def _per_step(name: str, units: str, en: str, zh: str) -> Array:
    return Array(name, ("step",), "f8", units, en, zh)


def _per_layer(name: str, units: str, en: str, zh: str) -> Array:
    return Array(name, ("layer", "step"), "f8", units, en, zh)


def _hyperparameter(name: str, units: str, en: str, zh: str) -> Array:
    return Array(name, ("optimizer_group", "step"), "f8", units, en, zh)


# θ parameters before the step, g gradient that the optimizer used, v velocity before the step, Δθ the update.
# Units: `loss` for the loss and `parameter` for θ; a learning rate has parameter²/loss.
ARRAYS = (
    Array("step", ("step",), "i8", "step", "optimizer step", "优化步"),
    _per_step("sgd_time", "parameter2 loss-1", "SGD time Σ η(1−ν)/(1−μ)", "SGD 时间 Σ η(1−ν)/(1−μ)"),
    Array("epoch", ("step",), "i8", "1", "epoch", "轮次"),
    _per_step("epoch_position", "1", "position within the epoch", "轮次内位置"),
    _per_step("wall_time", "s", "wall time since the start of the recording", "自记录开始的时间"),
    _per_step("loss", "loss", "mini-batch loss", "小批量损失"),
    _per_step("clip_factor", "1", "factor applied by gradient clipping", "梯度裁剪因子"),
    _per_step("skipped", "1", "steps tried and not made before this one", "此步之前尝试而未执行的步数"),
    _hyperparameter("learning_rate", "parameter2 loss-1", "learning rate η", "学习率 η"),
    _hyperparameter("momentum", "1", "momentum μ", "动量 μ"),
    _hyperparameter("dampening", "1", "dampening ν", "阻尼系数 ν"),
    _hyperparameter("weight_decay", "loss parameter-2", "weight decay", "权重衰减"),
    _per_layer("gradient_squared", "loss2 parameter-2", "squared gradient norm ‖g‖²", "梯度范数平方 ‖g‖²"),
    _per_layer("parameter_dot_gradient", "loss", "θ·g", "θ·g"),
    _per_layer("parameter_squared", "parameter2", "squared parameter norm ‖θ‖²", "参数范数平方 ‖θ‖²"),
    _per_layer("displacement_squared", "parameter2", "squared displacement ‖θ−θ_ref‖²", "位移平方 ‖θ−θ_ref‖²"),
    _per_layer("displacement_dot_gradient", "loss", "(θ−θ_ref)·g", "(θ−θ_ref)·g"),
    _per_layer("velocity_squared", "loss2 parameter-2", "squared velocity ‖v‖² before the step", "步前速度平方 ‖v‖²"),
    _per_layer("velocity_dot_gradient", "loss2 parameter-2", "v·g, velocity before the step", "v·g（步前速度）"),
    _per_layer("parameter_dot_velocity", "loss", "θ·v, velocity before the step", "θ·v（步前速度）"),
    _per_layer("update_squared", "parameter2", "squared update ‖Δθ‖²", "更新量平方 ‖Δθ‖²"),
    Array("parameter_sketch", ("group", "sketch", "step"), "f8", "parameter", "P(θ−θ_ref)", "P(θ−θ_ref)"),
    Array("gradient_sketch", ("group", "sketch", "step"), "f4", "loss parameter-1", "Pg", "Pg"),
    _per_layer("chunk_noise_trace", "loss2 parameter-2", "tr C from micro-batches", "由微批次得到的 tr C"),
    _per_step("chunk_count", "1", "micro-batches K of the step", "该步的微批次数 K"),
    Array("probe_step", ("probe",), "i8", "step", "step of the probe", "探针所在步"),
    Array("probe_loss", ("probe",), "f8", "loss", "loss of the probe batch", "探针批次损失"),
    Array("noise_trace", ("layer", "probe"), "f8", "loss2 parameter-2", "½‖g−g′‖²", "½‖g−g′‖²"),
    Array("gradient_dot", ("layer", "probe"), "f8", "loss2 parameter-2", "g·g′", "g·g′"),
    Array("probe_dot_displacement", ("layer", "probe"), "f8", "loss", "g′·(θ−θ_ref)", "g′·(θ−θ_ref)"),
    Array("probe_sketch", ("group", "sketch", "probe"), "f4", "loss parameter-1", "Pg′", "Pg′"),
    Array("curvature_step", ("curvature",), "i8", "step", "step of the curvature", "曲率所在步"),
    Array(
        "velocity_curvature",
        ("layer", "curvature"),
        "f8",
        "loss3 parameter-4",
        "v·(Hv) of the layer, velocity before the step",
        "该层的 v·(Hv)（步前速度）",
    ),
    Array("per_sample_step", ("per_sample",), "i8", "step", "step of the single samples", "单样本测量所在步"),
    Array("per_sample_count", ("per_sample",), "i8", "1", "number of single samples", "单样本个数"),
    Array(
        "per_sample_noise_trace",
        ("layer", "per_sample"),
        "f8",
        "loss2 parameter-2",
        "trace of the covariance of a single sample's gradient",
        "单样本梯度协方差的迹",
    ),
    Array("window_start", ("window",), "i8", "step", "first step of the window", "窗口起始步"),
    Array("window_stop", ("window",), "i8", "step", "end step of the window", "窗口结束步"),
    Array(
        "gradient_mean",
        ("parameter", "window"),
        "f4",
        "loss parameter-1",
        "mean of g over the window",
        "窗口内 g 的均值",
    ),
    Array(
        "gradient_second_moment",
        ("parameter", "window"),
        "f4",
        "loss2 parameter-2",
        "mean of g² over the window",
        "窗口内 g² 的均值",
    ),
    Array("snapshot_step", ("snapshot",), "i8", "step", "step of the snapshot", "快照所在步"),
    Array("parameters", ("parameter", "snapshot"), "f4", "parameter", "parameters θ", "参数 θ"),
    Array("parameters_code", ("parameter", "snapshot"), "u4", "1", "coded parameters", "编码的参数"),
    Array("snapshot_quantum", ("layer", "snapshot"), "f8", "parameter", "quantum of the code", "编码的量子"),
    Array("snapshot_error", ("layer", "snapshot"), "f4", "1", "rms error per rms displacement", "误差与位移之比"),
    Array("evaluation_step", ("evaluation",), "i8", "step", "step of the evaluation", "评估所在步"),
    Array("train_loss", ("evaluation",), "f8", "loss", "training loss", "训练损失"),
    Array("train_accuracy", ("evaluation",), "f8", "1", "training accuracy", "训练准确率"),
    Array("test_loss", ("evaluation",), "f8", "loss", "test loss", "测试损失"),
    Array("test_accuracy", ("evaluation",), "f8", "1", "test accuracy", "测试准确率"),
    Array("initial_parameters", ("parameter",), "f4", "parameter", "parameters θ_ref at the start", "初始参数 θ_ref"),
    Array("final_parameters", ("parameter",), "f4", "parameter", "parameters at the end", "最终参数"),
)
_BY_NAME = {array.name: array for array in ARRAYS}
RESERVED = {dim for array in ARRAYS for dim in array.dims} | {"layer_group", "layer_size", "layer_optimizer_group"}
RESERVED |= {"initial_parameters", "final_parameters", "zarr.json"}
"""names that cannot be logged: dimensions and coordinates of an opened run, and what lies beside the arrays"""


def measured_stretches(attributes: Mapping[str, Any], steps: int) -> list[tuple[int, int]]:
    """Stretches [start, stop) of consecutive steps whose inner products and sketches were due, of the first `steps`.

    Nothing may be computed across the gaps between them, where these arrays are NaN.
    """
    return due_stretches(attributes.get("recorder", {}).get("products_every", 1), steps)


def growing_dimension(name: str) -> str | None:
    """The growing dimension of an array of the format; None for names that the format does not know."""
    return _BY_NAME[name].dims[-1] if name in _BY_NAME else None


# --------------------------------------------------------------------------------------------------- writing


class RunWriter:
    """The only writer of a run.

    Args:
        folder: the run folder; its `run.zarr` is created.
        sizes: length of each fixed dimension (`layer`, `group`, `sketch`, `parameter`, `optimizer_group`).
        arrays: names from `ARRAYS` to create; further per-step scalars appear when they are first appended.
        attributes: JSON-able description of the run (settings, provenance, layer and group names).
        dtypes: other types than the table's, e.g. `{"gradient_sketch": "f8"}` for a float64 model.
        committed: go on with the recording that is there, from these entries of each growing dimension on; what lies
            beyond them is dropped, and `arrays` and `attributes` stay as they are.
        snapshot_tolerance: largest error of a snapshot in units of the rms displacement since the one before, per
            layer; 0 is lossless.

    Raises:
        RunError: if the folder holds a recording already (or, to go on, none that is as long), or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        sizes: Mapping[str, int],
        arrays: list[str],
        attributes: Mapping[str, Any],
        dtypes: Mapping[str, str] | None = None,
        *,
        committed: Mapping[str, int] | None = None,
        snapshot_tolerance: float = 0.0,
    ):
        self._folder, self._path = Path(folder), Path(folder) / "run.zarr"
        self._sizes = dict(sizes)
        self._dtypes = dict(dtypes or {})
        if self._dtypes.get("parameters") == "f8":
            self._dtypes["parameters_code"] = "u8"
        self._tolerance = snapshot_tolerance
        self._encoder: snapshots.SnapshotEncoder | None = None
        self._committed: dict[str, int] = {dim: 0 for dim in GROWING}
        # All arrays of a dimension are as long as each other, so that plain xarray opens an unfinished run too.
        self._capacity = {dim: _STRIDE[dim == "step"] for dim in GROWING}
        self._arrays: dict[str, zarr.Array] = {}
        self._tails: dict[str, np.ndarray] = {}
        if committed is None:
            self._make(arrays, attributes)
        else:
            self._reopen(committed)

    def _make(self, arrays: list[str], attributes: Mapping[str, Any]) -> None:
        with _writing_to(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                # Of several writers that start at the same instant, the file system lets one make it.
                self._path.mkdir()
            except FileExistsError:
                raise RunError(
                    f"{self._folder} holds a recording already; choose another name, or replace it with --overwrite "
                    "(in Python overwrite=True)"
                ) from None
            self._identity = _identity(self._path)
        now = time.time()
        self._attributes = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **attributes,
            "state": "running",
            "started": now,
            "last_commit": now,
            "committed": self._committed,
        }
        with _writing_to(self._folder):
            self._group = zarr.create_group(self._path, attributes=dict(self._attributes))
            for name in arrays:
                self._create(_BY_NAME[name])

    def _reopen(self, committed: Mapping[str, int]) -> None:
        self._attributes = read_attributes(self._folder)
        # As there, for a checkpoint from before a dimension existed.
        committed = dict.fromkeys(GROWING, 0) | dict(committed)
        there = self._attributes["committed"]
        if any(there[dim] < committed[dim] for dim in GROWING):
            raise RunError(
                f"{self._folder} holds {there['step']} steps, fewer than the {committed['step']} to go on from"
            )
        self._identity = _identity(self._path)
        self._committed = {dim: committed[dim] for dim in GROWING}
        self._attributes |= {
            "state": "running",
            "resumed_steps": [*self._attributes.get("resumed_steps", []), committed["step"]],
        }
        # As in `_create`; of an array that is opened, zarr asks for this in no other way.
        with _writing_to(self._folder), zarr.config.set({"array.write_empty_chunks": True}):
            self._group = zarr.open_group(self._path, mode="r+")
            # First the commit: a reader must find all that it is told of.
            self._commit()
            for folder in [entry for entry in self._path.iterdir() if entry.is_dir()]:
                if folder.name == "final_parameters" or not (folder / "zarr.json").is_file():
                    shutil.rmtree(folder)
                    continue
                array = zarr.open_array(self._path, path=folder.name, mode="r+")
                self._arrays[folder.name] = array
                if (dim := _growing_dim(array)) is not None:
                    count = self._capacity[dim] = self._committed[dim]
                    array.resize((*array.shape[:-1], count))
                    self._tails[folder.name] = np.asarray(array[..., count - count % array.chunks[-1] :])

    @property
    def committed(self) -> dict[str, int]:
        """Entries that are safe on disk, by growing dimension."""
        return dict(self._committed)

    def state_dict(self) -> dict[str, Any]:
        """What a writer needs beside the store to go on from what is committed; call it when nothing waits."""
        return {"committed": self.committed, "snapshots": self._encoder and self._encoder.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        if state["snapshots"]:
            self._snapshot_encoder().load_state_dict(state["snapshots"])

    def note(self, **attributes: Any) -> None:
        """Set root attributes, which are written with the next commit."""
        self._attributes |= attributes

    def bytes_on_disk(self) -> dict[str, int]:
        """What the recording takes, by growing dimension, and "" for all else; call it when nothing waits."""
        sizes: dict[str, int] = dict.fromkeys(("", *GROWING), 0)
        for name, array in self._arrays.items():
            files = [path for path in (self._path / name).rglob("*") if path.is_file()]
            # Times compress as the clock has it; what is decided by this must not depend on that.
            timed = 8 * self.committed["step"] if name == "wall_time" else 0
            sizes[_growing_dim(array) or ""] += timed or sum(path.stat().st_size for path in files)
        # The root's attributes hold times, whose digits differ from run to run; what is decided by this must not.
        root = (self._path / "zarr.json").stat().st_size
        sizes[""] += -(-(root + _ROOT_BYTES // 4) // _ROOT_BYTES) * _ROOT_BYTES
        return sizes

    def write_fixed(self, name: str, values: np.ndarray) -> None:
        """Write an array without a growing dimension, such as `initial_parameters`.

        Raises:
            RunError: if the store cannot be written.
        """
        self._require_store()
        with _writing_to(self._folder):
            if name not in self._arrays:
                self._create(_BY_NAME[name])
            self._arrays[name][...] = values

    def append(self, dim: str, block: Mapping[str, np.ndarray]) -> None:
        """Append entries along one growing dimension and commit them.

        Args:
            dim: one of `GROWING`.
            block: for each array its new entries, shape (..., n) with the growing dimension last and the same n.
                An array of `dim` that is left out gets its fill value; an unknown name becomes a per-step scalar.
                `parameters` are stored coded, against the initial parameters, which must be there.

        Raises:
            OSError: if the store cannot be written. What was committed before stays valid.
            RunError: if the store has disappeared; then nothing is safe any more.
        """
        self._require_store()
        if dim == "snapshot":
            block = self._encode_snapshots(block)
        count = next(iter(block.values())).shape[-1]
        start = self._committed[dim]
        self._grow(dim, start + count)
        for name in block:
            if name not in self._arrays:
                self._create(_BY_NAME.get(name, Array(name, (dim,), "f8", "1", name, name)))
                # An array that appears late has the chunks before it too: a missing chunk is always a defect.
                array = self._arrays[name]
                array[..., : start - start % array.chunks[-1]] = array.fill_value
        for name, array in self._arrays.items():
            if _growing_dim(array) == dim:
                missing = np.full((*array.shape[:-1], count), array.fill_value, array.dtype)
                self._append_array(name, start, block.get(name, missing))
        self._committed[dim] = start + count
        self._commit()

    def close(self, state: str) -> None:
        """Trim the arrays to what was committed and mark the run as `finished`, `stopped` or `failed`."""
        self._require_store()
        for array in self._arrays.values():
            dim = _growing_dim(array)
            if dim and array.shape[-1] != self._committed[dim]:
                array.resize((*array.shape[:-1], self._committed[dim]))
        self._attributes["state"] = state
        self._commit()

    def _encode_snapshots(self, block: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        block = dict(block)
        names = ("parameters_code", "snapshot_quantum", "snapshot_error")
        return block | dict(zip(names, self._snapshot_encoder().encode(block.pop("parameters")), strict=True))

    def _snapshot_encoder(self) -> snapshots.SnapshotEncoder:
        if self._encoder is None:
            if "parameters_code" not in self._arrays:
                self._create(_BY_NAME["parameters_code"])
            reference = np.asarray(self._arrays["initial_parameters"][...])
            sizes = [layer["size"] for layer in self._attributes["layers"]]
            self._encoder = snapshots.SnapshotEncoder(reference, sizes, self._tolerance, snapshots.PERIOD)
        return self._encoder

    def _grow(self, dim: str, needed: int) -> None:
        capacity = self._capacity[dim]
        if needed <= capacity:
            return
        stride = _STRIDE[dim == "step"]
        self._capacity[dim] = max(2 * capacity, -(-needed // stride) * stride)
        for array in self._arrays.values():
            if _growing_dim(array) == dim:
                array.resize((*array.shape[:-1], self._capacity[dim]))

    def _require_store(self) -> None:
        """Refuse to go on where the store was taken away: zarr would quietly make the folders again, half empty."""
        there = [self._path / "zarr.json"]
        if "initial_parameters" in self._arrays:
            # Of all metadata only these are never written again, and so not made again while somebody deletes them.
            there.append(self._path / "initial_parameters" / "zarr.json")
        if _identity(self._path) != self._identity or not all(file.is_file() for file in there):
            self._committed = dict.fromkeys(GROWING, 0)
            raise RunError(f"{self._path} has disappeared")

    def _commit(self) -> None:
        self._require_store()
        self._attributes["last_commit"] = time.time()
        self._group.attrs.put({**self._attributes, "committed": self.committed})

    def _create(self, spec: Array) -> None:
        dtype = np.dtype(self._dtypes.get(spec.name, spec.dtype))
        growing = spec.dims[-1] in GROWING
        fixed = tuple(self._sizes[dim] for dim in (spec.dims[:-1] if growing else spec.dims))
        chunks = _chunk_shape(fixed, growing, dtype.itemsize, spec.dims)
        shape = (*fixed, self._capacity[spec.dims[-1]]) if growing else fixed
        self._arrays[spec.name] = self._group.create_array(
            spec.name,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            fill_value={"i": -1, "u": 0, "f": np.nan}[dtype.kind],
            dimension_names=spec.dims,
            compressors=[
                BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=dtype.itemsize),
                Crc32cCodec(),
            ],
            # Readers take a chunk that is not there for missing values, so every chunk is written.
            config={"write_empty_chunks": True},
            attributes={"units": spec.units, "long_name": spec.long_name, "long_name_zh": spec.long_name_zh},
        )

    def _append_array(self, name: str, start: int, values: np.ndarray) -> None:
        """Write the chunks that `values` touches, whole, with the entries that the first of them holds already."""
        array = self._arrays[name]
        width = array.chunks[-1]
        tail = self._tails.get(name)
        begin = start - start % width
        if tail is None or tail.shape[-1] != start - begin:
            tail = np.full((*values.shape[:-1], start - begin), array.fill_value, array.dtype)
        if array.dtype.kind == "i":
            values = np.where(np.isfinite(values), values, array.fill_value)
        filled = np.concatenate([tail, values.astype(array.dtype, copy=False)], axis=-1)
        end = begin + filled.shape[-1]
        whole = min(-(-end // width) * width, array.shape[-1])
        padding = np.full((*filled.shape[:-1], whole - end), array.fill_value, array.dtype)
        array[..., begin:whole] = np.concatenate([filled, padding], axis=-1)
        self._tails[name] = filled[..., filled.shape[-1] - end % width :] if end % width else filled[..., :0]


def _chunk_shape(fixed: tuple[int, ...], growing: bool, itemsize: int, dims: tuple[str, ...]) -> tuple[int, ...]:
    """About 1 MiB per chunk, whole series of a block of features together, at most 16 MiB for one row of chunks.

    A row of chunks is rewritten whenever a flush finds it half full, so it must stay small. A long series of single
    numbers would lie in very many files, so that its chunks are as long as 32 KiB allow.
    """
    if not growing:
        return tuple(max(1, min(size, _CHUNK_BYTES // itemsize)) for size in fixed)
    row = max(1, int(np.prod(fixed))) * itemsize
    width = max(_STEPS_PER_CHUNK, _ROW_BYTES // row) if dims[-1] == "step" else int(np.clip(2**24 // row, 1, 16))
    if not fixed:
        return (width if dims[-1] == "step" else 4 * width,)
    *leading, last = fixed
    block = max(1, _CHUNK_BYTES // (itemsize * width))
    return (*(1 for _ in leading), max(1, min(last, block)), width)


@contextlib.contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """One sentence instead of what the operating system says."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise RunError(f"{folder} cannot be written ({why}); choose a folder that can, with space left") from error


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another one at the same place; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _growing_dim(array: zarr.Array) -> str | None:
    names: tuple[str, ...] = getattr(array.metadata, "dimension_names", None) or ("",)
    return names[-1] if names[-1] in GROWING else None


def remove_recording(folder: Path) -> None:
    """Delete what thermodl wrote into a run folder (recording, results, the model it trained), and nothing else.

    Raises:
        RunError: if the run is being recorded; then nothing is deleted.
    """
    folder, attributes = Path(folder), {}
    with contextlib.suppress(RunError):
        attributes = read_attributes(folder)
    if attributes and run_state(attributes) == "running":
        raise RunError(
            f"{folder} is being recorded, and was not replaced; choose another name, or stop that recording first (one "
            f"that has crashed counts as stopped {SILENT_AFTER_SECONDS:.0f} s after its last sign of life)"
        )
    for name in ("run.zarr", "results.zarr"):
        shutil.rmtree(folder / name, ignore_errors=True)
    # Only the built-in training, whose settings have an id, writes these.
    if attributes.get("run_id"):
        for name in ("model.safetensors", CHECKPOINT):
            (folder / name).unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------------- reading


def run_folder(path: str | Path) -> Path:
    """The run folder of `path`, which may name the folder or the `run.zarr` inside."""
    path = Path(path)
    return path.parent if path.name == "run.zarr" else path


def read_attributes(path: str | Path) -> dict[str, Any]:
    """The root attributes of a run, read and checked without opening its arrays.

    Raises:
        RunError: if there is no run, its metadata cannot be read or is not what the format says, or its format is newer
            than this version.
    """
    folder = run_folder(path)
    metadata = folder / "run.zarr" / "zarr.json"
    if folder.is_file():
        raise RunError(f"{folder} is a file, and no run folder; from a zip of a run `thermodl unpack` makes one")
    if not folder.is_dir():
        raise RunError(f"there is no run at {folder}: no such folder; `thermodl ls` lists the runs")
    try:
        attributes = json.loads(metadata.read_bytes())["attributes"]
    except FileNotFoundError:
        what = "run.zarr has no zarr.json" if metadata.parent.is_dir() else "run.zarr is missing"
        raise RunError(f"{folder} holds no recording ({what}); `thermodl ls` lists the runs") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"the metadata of {folder} cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise RunError(f"{folder / 'run.zarr'} is not a ThermoDL run (its attribute format is not {FORMAT!r})")
    version = attributes.get("format_version")
    if not isinstance(version, int):
        raise RunError(f"{folder} states no format version; expected {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise RunError(
            f"{folder} has format version {version}, this thermodl reads up to {FORMAT_VERSION}; "
            "upgrade with pip install --upgrade thermodl"
        )
    committed = attributes.get("committed")
    # A run from before a dimension existed has none of it.
    committed = dict.fromkeys(GROWING, 0) | committed if isinstance(committed, dict) and "step" in committed else {}
    if not committed or not all(isinstance(committed[dim], int) for dim in GROWING):
        raise RunError(f"{folder} has no valid commit record; the recording was cut off before its first flush")
    _check_description(folder, attributes)
    return attributes | {"committed": committed}


def _check_description(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Refuse what readers rely on where it is there and of another form: somebody else's program may have written it.

    Raises:
        RunError: naming the attribute.
    """
    layers, groups = attributes.get("layers", []), attributes.get("groups", [])
    fields = {"name": str, "group": str, "size": int, "optimizer_group": int}
    valid = {
        "groups": isinstance(groups, list) and all(isinstance(group, str) for group in groups),
        "layers": isinstance(layers, list)
        and all(
            isinstance(layer, dict)
            and all(isinstance(layer.get(key), kind) for key, kind in fields.items())
            and layer["size"] > 0
            and layer["optimizer_group"] >= 0
            for layer in layers
        ),
        **{name: isinstance(attributes.get(name, {}), dict) for name in ("optimizer", "recorder", "not_recorded")},
    }
    for name, well in valid.items():
        if not well:
            raise RunError(
                f"{folder} has an attribute {name} that is not as the format says, {_FORMS[name]}; "
                f"it is {str(attributes[name])[:60]!r}"
            )
    if ALL_GROUPS in groups or len(set(groups)) < len(groups) or {layer["group"] for layer in layers} - set(groups):
        raise RunError(
            f"{folder} has groups that cannot be told apart: each layer needs one of them, no two may have the same "
            f"name, and {ALL_GROUPS!r} is that of all layers together"
        )


def run_state(attributes: Mapping[str, Any], now: float | None = None) -> str:
    """`running`, `finished`, `stopped`, `failed`, or `silent`: said to run, but without a sign of life."""
    state = str(attributes.get("state", "running"))
    now = time.time() if now is None else now
    if state == "running" and now - float(attributes.get("last_commit", 0.0)) > SILENT_AFTER_SECONDS:
        return "silent"
    return state


def open_run(path: str | Path) -> xr.Dataset:
    """Open a recording lazily, clipped to what was committed.

    Args:
        path: the run folder or its `run.zarr`.

    Returns:
        A dataset of dask arrays with dimensions `step`, `layer`, `group`, `sketch`, `probe`, `curvature`, `per_sample`,
        `window`, `snapshot`, `evaluation`, `parameter`, `optimizer_group`; growing dimensions are one chunk, so that a
        time series is never cut. Coordinates `layer` and `group` carry names; `layer_group` gives each layer's group.
        `parameters` are decoded as they are read.

    Raises:
        RunError: as `read_attributes`, or if an array is missing or unreadable.
    """
    folder = run_folder(path)
    attributes = read_attributes(folder)
    try:
        with warnings.catch_warnings():
            # What a killed writer left half made is no part of the run.
            warnings.simplefilter("ignore", ZarrUserWarning)
            store = LocalStore(folder / "run.zarr", read_only=True)
            # One after the other: opened together, all others would complain where one cannot be read.
            variables = {
                name: _lazy(zarr.open_array(store, path=name, mode="r"), attributes["committed"])
                for name in sorted(entry.parent.name for entry in store.root.glob("*/zarr.json"))
            }
            if variables.pop("parameters_code", None) is not None and attributes["committed"]["snapshot"]:
                variables["parameters"] = _decoded(store, attributes)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"the arrays of {folder} cannot be opened ({type(error).__name__}: {error})") from error
    if "step" not in variables:
        raise RunError(f"{folder} has no array 'step'; the recording is damaged")
    layers, groups = attributes.get("layers", []), attributes.get("groups", [])
    try:
        run = xr.Dataset(variables, attrs=attributes).assign_coords(
            layer=[layer["name"] for layer in layers],
            layer_group=("layer", [layer["group"] for layer in layers]),
            layer_size=("layer", [layer["size"] for layer in layers]),
            layer_optimizer_group=("layer", [layer["optimizer_group"] for layer in layers]),
            group=groups,
        )
    except ValueError as error:
        raise RunError(f"the arrays of {folder} do not fit each other, or its layers and groups ({error})") from error
    return run.isel({dim: slice(_complete_events(run, dim)) for dim in GROWING[1:] if dim in run.dims})


def _complete_events(run: xr.Dataset, dim: str) -> int | None:
    """How many events are of committed steps: a writer that was killed may have left one of the step it was in.

    An evaluation, and the end of a window, may be at the end of the last step. None (all) if it cannot be read.
    """
    name = "window_stop" if dim == "window" else f"{dim}_step"
    side = "right" if dim in ("window", "evaluation") else "left"
    try:
        return int(np.searchsorted(run[name].values, run.sizes["step"], side))
    except (KeyError, RunError):
        return None


def _lazy(array: zarr.Array, committed: Mapping[str, int]) -> xr.Variable:
    """A committed part of an array, with its names."""
    names = getattr(array.metadata, "dimension_names", ())
    return xr.Variable(names, _blocks(array, committed), dict(array.attrs))


def _blocks(array: zarr.Array, committed: Mapping[str, int]) -> "dask.array.Array":
    """A committed part of an array: chunked as on disk, but with whole time series, and of long ones with fewer."""
    import dask.array  # takes longer than all else here, and only an opened run needs it

    dim = _growing_dim(array)
    chunks = array.chunks
    if dim:
        features = [min(width, features_per_block(committed[dim])) for width in chunks[-2:-1]]
        chunks = (*chunks[:-2], *features, array.shape[-1])
    # name=False asks for a name without hashing the data, which the types of dask do not know.
    data = dask.array.from_array(array, chunks, name=False, getitem=_read)  # pyright: ignore[reportArgumentType]
    return data[..., : committed[dim]] if dim else data


def _decoded(store: LocalStore, attributes: Mapping[str, Any]) -> xr.Variable:
    """`parameters` of a run that stores them coded, decoded block by block as they are read."""
    import dask.array

    names = ("parameters_code", "snapshot_quantum", "initial_parameters")
    arrays = [zarr.open_array(store, path=name, mode="r") for name in names]
    codes, quanta, reference = (_blocks(array, attributes["committed"]) for array in arrays)
    # dask gives the argument the type of its default.
    reference = reference.rechunk((codes.chunks[0],))[:, None]  # pyright: ignore[reportArgumentType]
    edges = np.cumsum([layer["size"] for layer in attributes.get("layers", [])])

    def decode(
        codes: np.ndarray, reference: np.ndarray, quanta: np.ndarray, block_info: dict[int, dict[str, Any]]
    ) -> np.ndarray:
        start, stop = block_info[0]["array-location"][0]
        layer = np.searchsorted(edges, np.arange(start, stop), side="right")
        return snapshots.decode(codes, quanta, layer, reference[:, 0], snapshots.PERIOD)

    data = dask.array.map_blocks(
        decode, codes, reference, quanta=quanta, dtype=reference.dtype, chunks=codes.chunks, meta=np.empty((0, 0))
    )
    spec = _BY_NAME["parameters"]
    units = {"units": spec.units, "long_name": spec.long_name, "long_name_zh": spec.long_name_zh}
    return xr.Variable(spec.dims, data, units)


def _read(
    array: zarr.Array,
    index: tuple[slice, ...],
    asarray: bool = True,  # noqa: ARG001 - dask's
    lock: Any = None,  # noqa: ARG001
) -> np.ndarray:
    """A block, as dask asks for it."""
    spans = [span.indices(size)[:2] for span, size in zip(index, array.shape, strict=True)]
    try:
        return read_block(array, Path(array.store.root, array.path), spans)  # pyright: ignore[reportAttributeAccessIssue]
    except UNREADABLE as error:
        place = f"{array.store}/{array.path}".removeprefix("file://")
        raise RunError(f"{place} is damaged and cannot be read; thermodl check names the place") from error


def features_per_block(steps: int) -> int:
    """How many time series of so many steps are read at a time, a power of two: `BLOCK_BYTES` of float64 or less."""
    return 2 ** max(0, int(np.log2(BLOCK_BYTES // 8 / max(steps, 1))))


def list_runs(root: str | Path) -> list[Path]:
    """The run folders directly below `root`, by name; a folder counts as a run if it holds `run.zarr`.

    Raises:
        RunError: if `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise RunError(f"there is no folder {root}; record a run first, or name the folder that holds the runs")
    return sorted(
        entry
        for entry in root.iterdir()
        if NAME.fullmatch(entry.name) and not entry.is_symlink() and (entry / "run.zarr").is_dir()
    )
