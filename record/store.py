"""Reading runs: their attributes, checked, and their arrays, lazily and clipped to what was committed.

The format is that of `format`. This module knows nothing of torch.
"""

import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from .chunk_files import UNREADABLE, read_block
from .errors import RunError
from .format import ALL_GROUPS, BY_NAME, FORMAT, FORMAT_VERSION, GROWING, growing_dimension_of, is_run_name

if TYPE_CHECKING:
    import dask.array

SILENT_AFTER_SECONDS = 120.0
BLOCK_BYTES = 2**26
"""of whole time series that are read at a time"""
_FORMS = {
    "layers": "a list of tables with name, group, size and optimizer_group",
    "groups": "a list of names",
    "last_commit": "seconds since 1970",
    "optimizer": "a table",
    "recorder": "a table",
    "not_recorded": "a table",
}
"""of attributes that readers rely on"""
_LATEST = 2.0**40
"""seconds; far in the future, and near enough for clocks and calendars"""


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
    last_commit = attributes.get("last_commit", 0.0)
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
        # Whether a run is silent follows from it. Infinity, NaN and whole numbers beyond any float are no times.
        "last_commit": type(last_commit) in (int, float) and abs(last_commit) <= _LATEST,
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

    dim = growing_dimension_of(array)
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
        # Compiled, which who does not read snapshots need not wait for.
        from . import snapshots

        return snapshots.decode(codes, quanta, layer, reference[:, 0], snapshots.PERIOD)

    data = dask.array.map_blocks(
        decode, codes, reference, quanta=quanta, dtype=reference.dtype, chunks=codes.chunks, meta=np.empty((0, 0))
    )
    spec = BY_NAME["parameters"]
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
        if is_run_name(entry.name) and not entry.is_symlink() and (entry / "run.zarr").is_dir()
    )
