"""Results leave as plain files: NetCDF with everything, or one long table as Parquet or CSV; runs as zip, and their
trained models as safetensors.

NetCDF has a group for each analysis, as `results.zarr` has, with all attributes, and at its root those of the run; what
NetCDF has no type for, a truth value or a nested list, becomes a number or JSON. A table has a row for each value, with
the coordinates that it belongs to, its error bar and the worst verdict on it. The recorded series are one row for each
step instead. The model is the file that the built-in training wrote, buffers included; of another recording it is made
of the final parameters, under their names, without buffers.

A file is written beside its place and renamed into it, so that what is there is whole.
"""

import csv
import importlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from thermodl.record.archive import pack_run
from thermodl.record.errors import RunError
from thermodl.record.store import open_run, read_attributes, run_folder
from thermodl.record.words import command_line

from .results import (
    STATUSES,
    ResultsError,
    list_settings_names,
    open_results,
    read_result_attributes,
    read_verdicts,
)
from .versions import find_changes

Format = Literal["netcdf", "parquet", "csv", "zip", "safetensors"]
Table = dict[str, list[Any]]

SUFFIXES: dict[Format, str] = {
    "netcdf": ".nc",
    "parquet": ".parquet",
    "csv": ".csv",
    "zip": ".zip",
    "safetensors": ".safetensors",
}
TABLES: tuple[Format, ...] = ("csv", "parquet", "netcdf")
"""formats of results and series; the others are of the run as a whole"""
NEEDS = {"netcdf": "h5netcdf", "parquet": "pyarrow", "safetensors": "safetensors"}
"""packages of the extra `export` that formats need"""
PARTIAL_MODEL = "the parameters that were recorded, as they were at the end; no buffers, and none that were frozen"
_ACCOMPANY = ("stderr", "low", "high", "n_eff")
_ENDS = tuple(f"_{suffix}" for suffix in _ACCOMPANY)


class ExportError(ResultsError):
    """A file that cannot be written, with the reason."""


def export(
    run: str | Path,
    to: Format,
    out: str | Path | None = None,
    *,
    name: str = "default",
    only: Sequence[str] | None = None,
    series: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write the results of one run to one file.

    Args:
        run: the run folder.
        to: `netcdf`, `parquet` or `csv`; `zip` for the run as a whole, `safetensors` for its trained model.
        out: the file; by default named after the run, in the working directory.
        name: under which name the results are kept.
        only: names of analyses; all that there are by default.
        series: the recorded series of every step instead of results; sketches are left out.
        overwrite: replace a file that is there.

    Returns:
        The file.

    Raises:
        ExportError: if there are no such results, the file exists or cannot be written, or a package is missing.
        ResultsError: if the results cannot be read.
        RunError: if the recorded series cannot be read.

    >>> print(export("runs/mine", "csv", only=["temperature"]))
    mine.csv
    >>> export("runs/mine", "csv", only=["temperature"])
    Traceback (most recent call last):
        ...
    thermodl.analyze.export.ExportError: mine.csv exists; --overwrite replaces it, --out names another file
    """
    if to not in SUFFIXES:
        raise ExportError(f"{to!r} is no format; expected one of {', '.join(SUFFIXES)}")
    folder = run_folder(run)
    if to not in TABLES and (only or series or name != "default"):
        raise ExportError(f"--to {to} takes the run as a whole; it does not go with --name, --only or --series")
    kind = "-series" if series else "" if name == "default" else f"-{name}"
    path = Path(out) if out is not None else Path(f"{folder.resolve().name}{kind}{SUFFIXES[to]}")
    check_place(path, overwrite)
    require(to)
    write: Callable[[Path], None]
    if to == "zip":
        read_attributes(folder)  # says what is wrong, before a file is begun
        write = partial(pack_run, folder)
    elif to == "safetensors":
        write = _model(folder)
    elif series:
        recorded = recorded_series(folder)
        write = _netcdf({"series": recorded}, _of_run(folder)) if to == "netcdf" else _table(to, series_table(recorded))
    else:
        results = _choose(folder, name, only)
        if to == "netcdf":
            write = _netcdf(results, {**_of_run(folder), "results": name})
        else:
            write = _table(to, results_table(results, {"run": folder.resolve().name, "results": name}))
    return write_file(path, write)


def doubts_about(
    run: str | Path, to: Format, name: str = "default", only: Sequence[str] | None = None, *, series: bool = False
) -> list[str]:
    """What whoever exports should be told: that a model is not whole, or which results are stale."""
    folder = run_folder(run)
    if to == "safetensors":
        return [f"this model is {PARTIAL_MODEL}"] if is_partial_model(folder) else []
    if to not in TABLES or series:
        return []
    stored = read_result_attributes(folder, name)
    stale = [analysis for analysis in only or stored if _changes(folder, stored[analysis])]
    if not stale:
        return []
    named = ["--name", name] if name != "default" else []
    anew = command_line(["thermodl", "analyze", str(folder), *named])
    return [f"stale, or of a recording that cannot be read: {', '.join(stale)}; `{anew}` makes them anew"]


def check_place(path: Path, overwrite: bool = False) -> None:
    """Whether a file may be written there.

    Raises:
        ExportError: if not.
    """
    if path.is_dir():
        raise ExportError(f"{path} is a folder; expected the name of a file")
    if path.exists() and not overwrite:
        raise ExportError(f"{path} exists; --overwrite replaces it, --out names another file")


def write_file(path: Path, write: Callable[[Path], None]) -> Path:
    """Write beside the place, and rename: what is there is whole.

    Raises:
        ExportError: if that fails.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error.strerror or error})") from error
    return path


def write_rows(path: Path, to: Format, columns: Mapping[str, Any]) -> None:
    """A table of any columns as CSV, Parquet, or NetCDF with the dimension `row`.

    Raises:
        ExportError: if a package is missing.
    """
    require(to)
    if to == "netcdf":
        rows = xr.Dataset({name: ("row", np.asarray(values)) for name, values in columns.items()})
        _netcdf({"rows": rows})(path)
    else:
        _table(to, columns)(path)


def has_model(run: str | Path) -> bool:
    """Whether a run has a trained model, or final parameters, to export."""
    folder = run_folder(run)
    return (folder / "model.safetensors").is_file() or (folder / "run.zarr" / "final_parameters").is_dir()


def is_partial_model(run: str | Path) -> bool:
    """Whether the model is made of what was recorded, which is not all that it takes to run it."""
    return not (run_folder(run) / "model.safetensors").is_file()


def _model(folder: Path) -> Callable[[Path], None]:
    attributes = read_attributes(folder)
    saved = folder / "model.safetensors"
    if saved.is_file():
        return lambda path: _copy(saved, path)
    run = open_run(folder)
    if "final_parameters" not in run:
        raise ExportError(f"{folder} has no trained model: its training has not come to its end")
    layers, vector = attributes["layers"], run["final_parameters"].values
    ends = np.cumsum([layer["size"] for layer in layers])
    shapes = [layer.get("shape", [layer["size"]]) for layer in layers]
    parts = [part.reshape(shape) for part, shape in zip(np.split(vector, ends[:-1]), shapes, strict=True)]
    tensors = {layer["name"]: part for layer, part in zip(layers, parts, strict=True)}
    about = {"contents": PARTIAL_MODEL, "state": str(attributes.get("state", ""))}

    def write(path: Path) -> None:
        from safetensors.numpy import save

        path.write_bytes(save(tensors, about))

    return write


def _copy(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)


def results_table(results: Mapping[str, xr.Dataset], about: Mapping[str, Any] | None = None) -> Table:
    """One row for each value of each analysis, as columns.

    What is not defined has a row without a value, for its verdict; without a quantity where that is all of an analysis.

    What `about` says, the same in all rows; `analysis`, and `first_step` and `last_step` of its segment;
    `quantity`, the coordinates of all dimensions (None where a quantity has no such dimension; the place, from 0 on,
    where a dimension has none), `value`, `stderr`, `low`, `high`, `n_eff` (None where there is none), `units`,
    `verdict` (the worst status on it, empty for NaN of which no verdict says more), `codes` of all verdicts on it, and,
    of exported results, `stale`: what has changed since they were made.

    >>> table = results_table(open_results("runs/mine"))
    >>> sorted(set(table["analysis"]))[:3]
    ['ageing', 'correlation', 'diffusion']
    """
    rows: list[dict[str, Any]] = []
    coordinates: dict[str, None] = {}
    for analysis, dataset in results.items():
        stale = {"stale": dataset.attrs["stale"]} if "stale" in dataset.attrs else {}
        of_analysis = {**(about or {}), "analysis": analysis, **_steps_of(dataset), **stale}
        undefined = [one["quantity"] for one in read_verdicts(dataset) if one["code"] == "not-defined"]
        for quantity in dict.fromkeys(undefined):
            if quantity not in dataset and (quantity or not dataset.data_vars):
                rows.append({**of_analysis, "quantity": quantity, **_judge(dataset, quantity)})
        for quantity in map(str, dataset.data_vars):
            if any(quantity.endswith(end) and quantity.removesuffix(end) in dataset for end in _ENDS):
                continue
            variable = dataset[quantity]
            beside = {
                suffix: dataset[f"{quantity}_{suffix}"].broadcast_like(variable).transpose(*variable.dims).values
                for suffix in _ACCOMPANY
                if f"{quantity}_{suffix}" in dataset
            }
            # Without a coordinate, the place along a dimension is what tells rows apart.
            places = {dim: variable[dim] for dim in variable.dims if dim not in variable.coords}
            labels = {
                str(key): coordinate.broadcast_like(variable).transpose(*variable.dims).values
                for key, coordinate in {**places, **variable.coords}.items()
            }
            coordinates.update(dict.fromkeys(labels))
            fixed = {**of_analysis, "quantity": quantity, "units": variable.attrs.get("units", "")}
            fixed |= _judge(dataset, quantity)
            for index in np.ndindex(variable.shape):
                row = {key: _plain(values[index]) for key, values in (labels | beside).items()}
                value = _plain(variable.values[index])
                # What is not there is not "ok".
                absent = fixed["verdict"] == "ok" and isinstance(value, float) and math.isnan(value)
                rows.append({**fixed, **row, "value": value} | ({"verdict": ""} if absent else {}))
    before = [*(about or ()), "analysis", "first_step", "last_step", "quantity"]
    columns = [*before, *coordinates, "value", *_ACCOMPANY, "units", "verdict", "codes"]
    columns += ["stale"] if any("stale" in row for row in rows) else []
    return {column: [row.get(column) for row in rows] for column in columns}


def recorded_series(run: str | Path) -> xr.Dataset:
    """What was recorded at every step, lazily: clocks, scalars, hyper-parameters, inner products; no sketches.

    >>> recorded_series("runs/mine")["gradient_squared"].dims
    ('layer', 'step')
    """
    whole = open_run(run)
    small = {"step", "layer", "optimizer_group"}
    names = [name for name, values in whole.data_vars.items() if "step" in values.dims and set(values.dims) <= small]
    attributes = {key: whole.attrs[key] for key in ("run_id", "started", "sampling") if key in whole.attrs}
    return whole[names].drop_dims("group", errors="ignore").assign_attrs(attributes)


def series_table(recorded: xr.Dataset) -> dict[str, Any]:
    """One row for each step; an array of layers is a column `array.layer` for each."""
    columns: dict[str, Any] = {"step": recorded["step"].values}
    for name, values in recorded.data_vars.items():
        dim = next((dim for dim in values.dims if dim != "step"), None)
        if dim is None:
            columns[str(name)] = values.values
            continue
        labels = values[dim].values.tolist()
        block = values.transpose(dim, "step").values
        columns |= {f"{name}.{label}": row for label, row in zip(labels, block, strict=True)}
    return columns


def _choose(folder: Path, name: str, only: Sequence[str] | None) -> dict[str, xr.Dataset]:
    results = open_results(folder, name)
    if not results:
        names = ", ".join(list_settings_names(folder))
        there = (
            f"; there are {names}" if names else f"; `{command_line(['thermodl', 'analyze', str(folder)])}` makes them"
        )
        raise ExportError(f"{folder} has no results of the name {name!r}{there}")
    missing = [analysis for analysis in only or () if analysis not in results]
    if missing:
        raise ExportError(f"{folder} has no results of {', '.join(missing)}; it has {', '.join(results)}")
    return {analysis: _mark_stale(folder, results[analysis]) for analysis in only or results}


def _mark_stale(folder: Path, dataset: xr.Dataset) -> xr.Dataset:
    """The results of an analysis with the attribute `stale`: what has changed since they were made, or nothing.

    What it may be is told by `find_changes`; of a recording that cannot be read it is `recording-unreadable`.
    """
    return dataset.assign_attrs(stale=" ".join(_changes(folder, dataset.attrs)))


def _changes(folder: Path, stored: Mapping[Any, Any]) -> list[str]:
    try:
        return find_changes(read_attributes(folder), stored)
    except RunError:
        return ["recording-unreadable"]


def _steps_of(dataset: xr.Dataset) -> dict[str, int]:
    """First and last step of the segment of an analysis, or of the whole run; {} if it does not say."""
    start, stop = dataset.attrs.get("segment", (0, dataset.attrs.get("committed_steps", 0)))
    return {"first_step": int(start), "last_step": int(stop) - 1} if stop else {}


def _judge(dataset: xr.Dataset, quantity: str) -> dict[str, str]:
    found = [verdict for verdict in read_verdicts(dataset) if verdict["quantity"] in ("", quantity)]
    worst = max((verdict["status"] for verdict in found), key=STATUSES.index, default="ok")
    return {"verdict": worst, "codes": " ".join(verdict["code"] for verdict in found)}


def _of_run(folder: Path) -> dict[str, Any]:
    """What a file says of the run that it comes from; nothing but its name where the recording cannot be read."""
    try:
        attributes = read_attributes(folder)
    except RunError:
        attributes = {}
    keys = ("run_id", "started", "state", "sampling", "optimizer", "settings")
    return {"run": folder.resolve().name} | {key: attributes[key] for key in keys if key in attributes}


def _netcdf(groups: Mapping[str, xr.Dataset], about: Mapping[str, Any] | None = None) -> Callable[[Path], None]:
    tree = xr.DataTree.from_dict({name: _for_netcdf(dataset) for name, dataset in groups.items()})
    tree.attrs = _attributes(about or {})
    return lambda path: tree.to_netcdf(path, engine="h5netcdf")


def _for_netcdf(dataset: xr.Dataset) -> xr.Dataset:
    """Attributes that NetCDF can hold; names along a dimension are a coordinate already."""
    kept = {key: value for key, value in dataset.attrs.items() if not key.startswith("names_")}
    dataset = dataset.drop_encoding()
    dataset.attrs = _attributes(kept)
    for variable in dataset.variables.values():
        variable.attrs = _attributes(variable.attrs)
    return dataset


def _attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, bool):
            return int(value)
        numbers = isinstance(value, list) and value and all(type(entry) in (int, float) for entry in value)
        if isinstance(value, str | int | float | np.number | np.ndarray) or numbers:
            return value
        return json.dumps(value, ensure_ascii=False)

    return {str(key): convert(value) for key, value in attributes.items() if value is not None}


def _table(to: str, columns: Mapping[str, Any]) -> Callable[[Path], None]:
    return lambda path: (_write_parquet if to == "parquet" else _write_csv)(path, columns)


def _write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path)


def _write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    # Without the mark by which spreadsheets know UTF-8: names here are ASCII, and other readers trip over it.
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        # repr of a float is the shortest text that reads back as the same number.
        writer.writerows(zip(*(np.asarray(column, dtype=object).tolist() for column in columns.values()), strict=True))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def require(to: str) -> None:
    """Whether the package that a format needs is there.

    Raises:
        ExportError: naming the extra that brings it.
    """
    if to not in NEEDS:
        return
    try:
        importlib.import_module(NEEDS[to])
    except ModuleNotFoundError as error:
        raise ExportError(f'this format needs the package {error.name}: pip install "thermodl[export]"') from error
