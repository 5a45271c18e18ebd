"""The result format: `results.zarr` in the run folder, one Zarr v3 group `<settings name>/<analysis>` each.

A variable `x` is accompanied by its standard error `x_stderr` (and, where known, `x_n_eff`, the number of effectively
independent samples behind it), tied by the attribute `ancillary_variables`. Every variable carries `units`,
`long_name` and `long_name_zh`. Every group carries `analysis`, `analysis_version`, `kernels_version`, `cache_key`,
`run_id`, `started`, `committed_steps`, `segment`, `settings`, `method`, `reference`, `verdicts`, `thermodl_version`,
`created` and `digest`, the SHA-256 of all values, since zarr reads a chunk that was lost as NaN. What is not defined
for a kind of training has no variables, `defined` false, neither `cache_key` nor `segment`, and a verdict. Names along
a dimension are the attribute `names_<dimension>`, since Zarr v3 has no stable type for strings.
A verdict is `{"quantity", "status", "code", "en", "zh"}` with status `ok`, `caution` or `untrusted`.

A group is written beside its place and renamed into it, so that a reader never sees half a result.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.storage import LocalStore

from thermodl.record.errors import UserError
from thermodl.record.format import NAME
from thermodl.record.store import read_attributes, run_folder

FORMAT_VERSION = 1
STATUSES = ("ok", "caution", "untrusted")


class ResultsError(UserError):
    """Results that cannot be read or written."""


def write_results(run: str | Path, name: str, analysis: str, results: xr.Dataset) -> None:
    """Write one analysis (already computed) atomically to `results.zarr/<name>/<analysis>`.

    Raises:
        ValueError: if a variable lacks its attributes, or a verdict is malformed.
        ResultsError: if the place cannot be written.
    """
    check_results(results)
    place = run_folder(run) / "results.zarr" / name
    beside = place / f".{analysis}.{os.getpid()}.new"
    old = place / f".{analysis}.{os.getpid()}.old"
    stored = _names_to_attributes(results)
    try:
        place.mkdir(parents=True, exist_ok=True)
        for group in (place.parent, place):
            if not (group / "zarr.json").exists():
                zarr.create_group(group)
        stored = stored.assign_attrs(digest=_digest(stored))
        # A chunk of nothing but NaN would be left out, and come back as another NaN than was written.
        stored.to_zarr(beside, consolidated=False, zarr_format=3, mode="w", write_empty_chunks=True)
        if (place / analysis).exists():
            (place / analysis).rename(old)
        beside.rename(place / analysis)
    except OSError as error:
        raise ResultsError(f"{place / analysis} cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_results(results: xr.Dataset) -> None:
    """Hold a dataset against the format: attributes, error bars tied to their values, verdicts.

    Raises:
        ValueError: naming the first defect.
    """
    for name, variable in results.data_vars.items():
        for attribute in ("units", "long_name", "long_name_zh"):
            if not isinstance(variable.attrs.get(attribute), str):
                raise ValueError(f"result variable {name!r} has no attribute {attribute!r}")
        if str(name).endswith("_stderr") and str(name).removesuffix("_stderr") not in results:
            raise ValueError(f"{name!r} is an error bar without a value")
    for verdict in json.loads(results.attrs.get("verdicts", "[]")):
        if set(verdict) != {"quantity", "status", "code", "en", "zh"} or verdict["status"] not in STATUSES:
            raise ValueError(f"malformed verdict {verdict}")


def read_result_attributes(run: str | Path, name: str = "default") -> dict[str, dict[str, Any]]:
    """The attributes of every analysis stored under a settings name, read without opening arrays; {} if none."""
    place = run_folder(run) / "results.zarr" / name
    found: dict[str, dict[str, Any]] = {}
    if not place.is_dir():
        return found
    for entry in sorted(place.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        try:
            attributes = json.loads((entry / "zarr.json").read_bytes())["attributes"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(attributes, dict):
            found[entry.name] = attributes
    return found


def list_settings_names(run: str | Path) -> list[str]:
    """The names under which results of a run are stored, `default` first."""
    place = run_folder(run) / "results.zarr"
    entries = place.iterdir() if place.is_dir() else ()
    names = [entry.name for entry in entries if NAME.fullmatch(entry.name) and entry.is_dir()]
    return sorted(names, key=lambda name: (name != "default", name))


def open_results(run: str | Path, name: str = "default") -> dict[str, xr.Dataset]:
    """The results of a run, one in-memory dataset per analysis; {} if it was never analyzed.

    That of an analysis which is not defined for this kind of training has no variables, and a verdict that says why.

    Raises:
        RunError: if there are no results, and no run either.
        ResultsError: if a stored result cannot be read, or its format is newer than this version.

    >>> temperature = open_results("runs/mine")["temperature"]
    >>> temperature["noise_trace"].dims
    ('group',)
    """
    found = {analysis: open_result(run, name, analysis) for analysis in read_result_attributes(run, name)}
    if not found:
        read_attributes(run)
    return found


def open_result(run: str | Path, name: str, analysis: str) -> xr.Dataset:
    """One stored analysis, in memory.

    Raises:
        ResultsError: if it cannot be read, does not hold what was written, or its format is newer than this version.
    """
    place = run_folder(run) / "results.zarr" / name / analysis
    try:
        store = LocalStore(place, read_only=True)
        found = xr.open_zarr(store, consolidated=False, mask_and_scale=False, decode_times=False, chunks=None)
        version = found.attrs.get("format_version", 1)
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ResultsError(f"{place} has results format {version}, this thermodl reads up to {FORMAT_VERSION}")
        found = found.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ResultsError(
            f"{place} cannot be read ({type(error).__name__}: {error}); run thermodl analyze again with --force"
        ) from error
    # Results of an older version have no digest.
    if found.attrs.get("digest") not in (None, _digest(found)):
        raise ResultsError(f"{place} does not hold what was written; run thermodl analyze again with --force")
    return _names_from_attributes(found)


def read_verdicts(results: xr.Dataset) -> list[dict[str, str]]:
    """The verdicts of one analysis, worst first."""
    verdicts = json.loads(results.attrs.get("verdicts", "[]"))
    return sorted(verdicts, key=lambda verdict: -STATUSES.index(verdict["status"]))


def _digest(results: xr.Dataset) -> str:
    """SHA-256 over names, shapes and values of all variables."""
    digest = hashlib.sha256()
    for name in sorted(map(str, results.variables)):
        values = results[name].values
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _names_to_attributes(results: xr.Dataset) -> xr.Dataset:
    """Zarr v3 has no stable type for strings: names of groups travel as the attribute `names_<dimension>`."""
    text = [str(name) for name, values in results.coords.items() if values.dtype.kind in "UO"]
    names = {f"names_{name}": [str(value) for value in results[name].values.tolist()] for name in text}
    return results.drop_vars(text).assign_attrs(names)


def _names_from_attributes(results: xr.Dataset) -> xr.Dataset:
    names = {key.removeprefix("names_"): value for key, value in results.attrs.items() if key.startswith("names_")}
    return results.assign_coords({name: value for name, value in names.items() if name in results.dims})
