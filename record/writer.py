"""Writing a run: chunks first, then the commit that tells readers of them; nothing that is committed can be lost.

The format and its commit protocol are those of `format`. This module knows nothing of torch.
"""

import contextlib
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from . import snapshots
from .errors import RunError
from .format import BY_NAME, CHECKPOINT, FORMAT, FORMAT_VERSION, GROWING, Array, growing_dimension_of
from .store import SILENT_AFTER_SECONDS, read_attributes, run_state

_CHUNK_BYTES = 2**20
_ROW_BYTES = 2**15
_STEPS_PER_CHUNK = 256
_ROOT_BYTES = 2**14
_STRIDE = (64, 1024)
"""entries by which arrays are grown ahead, of events and of steps"""


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
        without_unit: arrays whose unit is not that of the table, and not known.

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
        without_unit: Collection[str] = (),
    ):
        self._folder, self._path = Path(folder), Path(folder) / "run.zarr"
        self._sizes = dict(sizes)
        self._dtypes = dict(dtypes or {})
        if self._dtypes.get("parameters") == "f8":
            self._dtypes["parameters_code"] = "u8"
        self._without_unit = frozenset(without_unit)
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
                self._create(BY_NAME[name])

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
                if (dim := growing_dimension_of(array)) is not None:
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
            sizes[growing_dimension_of(array) or ""] += timed or sum(path.stat().st_size for path in files)
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
                self._create(BY_NAME[name])
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
                self._create(BY_NAME.get(name, Array(name, (dim,), "f8", "1", name, name)))
                # An array that appears late has the chunks before it too: a missing chunk is always a defect.
                array = self._arrays[name]
                array[..., : start - start % array.chunks[-1]] = array.fill_value
        for name, array in self._arrays.items():
            if growing_dimension_of(array) == dim:
                missing = np.full((*array.shape[:-1], count), array.fill_value, array.dtype)
                self._append_array(name, start, block.get(name, missing))
        self._committed[dim] = start + count
        self._commit()

    def close(self, state: str) -> None:
        """Trim the arrays to what was committed and mark the run as `finished`, `stopped` or `failed`."""
        self._require_store()
        for array in self._arrays.values():
            dim = growing_dimension_of(array)
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
                self._create(BY_NAME["parameters_code"])
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
            if growing_dimension_of(array) == dim:
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
        attributes: dict[str, Any] = {"long_name": spec.long_name, "long_name_zh": spec.long_name_zh}
        if spec.name not in self._without_unit:
            attributes["units"] = spec.units
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
            attributes=attributes,
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
