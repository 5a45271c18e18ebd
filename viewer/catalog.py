"""The runs below one folder: the only place where an id from outside becomes a path."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any

import xarray as xr

from thermodl.analyze.results import list_settings_names, open_result, read_result_attributes
from thermodl.record.errors import UserError
from thermodl.record.format import SETTINGS_OF_SGD, flatten
from thermodl.record.store import list_runs, read_attributes, run_state

# What the format itself keeps in the attributes of a run, and what has its own place on a page.
_NOT_SETTINGS = {"format", "format_version", "run_id", "state", "started", "last_commit", "committed", "layers",
                 "groups", "settings", "provenance", "recorder_seconds"}  # fmt: skip
Stamp = tuple[int, int, int]
"""time, size and inode of a file"""


@dataclass(frozen=True)
class Run:
    """A run as far as its small metadata tell; a broken one keeps the reason instead of its attributes."""

    id: str
    path: Path
    attributes: Mapping[str, Any] = field(default_factory=dict)
    state: str = "broken"
    """running, finished, stopped, failed, silent, or broken"""
    problem: str = ""
    """why the run or its results cannot be read, without paths of this computer"""
    results_name: str = "default"
    """the settings name whose results are shown"""
    results_names: tuple[str, ...] = ()
    """all settings names that there are results of, `default` first"""
    analyzed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """attributes of each stored analysis"""

    @property
    def broken(self) -> bool:
        return self.state == "broken"

    @property
    def steps(self) -> int:
        """Optimizer steps that are safe on disk."""
        return int(self.attributes["committed"]["step"]) if self.attributes else 0

    @property
    def defined(self) -> list[str]:
        """The analyses of which there is more than a reason why there is nothing."""
        return [analysis for analysis, attributes in self.analyzed.items() if attributes.get("defined", True)]

    @property
    def version(self) -> str:
        """Changes whenever the recording or the results do; the key of everything cached."""
        stamps = sorted((name, str(attrs.get("created"))) for name, attrs in self.analyzed.items())
        recorded = f"{self.attributes.get('last_commit')} {self.attributes.get('committed')}"
        return f"{recorded} {self.results_names} {self.results_name} {stamps}"


def scan(root: str | Path) -> dict[str, Run]:
    """Every run directly below `root` by its id, broken ones included.

    Raises:
        RunError: if `root` is no folder.
    """
    folders = list_runs(root)
    there = set(folders)
    for key in [key for key in [*_kept] if key[0] not in there]:
        _kept.pop(key, None)
    return {folder.name: read_run(folder) for folder in folders}


def read_run(path: Path, results_name: str = "") -> Run:
    """Metadata of one run, with the results of that settings name if there are any, else of the first one.

    A run that cannot be read says why.
    """
    try:
        attributes = _attributes(path)
        state = run_state(attributes)
    except (UserError, TypeError, ValueError) as error:
        return Run(path.name, path, problem=plain_reason(error, path))
    try:
        names = (*list_settings_names(path),)
        name = results_name if results_name in names else next(iter(names), "default")
        return Run(path.name, path, attributes, state, "", name, names, _result_attributes(path, name))
    except (OSError, TypeError) as error:
        return Run(path.name, path, attributes, state, plain_reason(error, path))


# A thousand runs have twelve thousand files of metadata, too many to read at every click.
_kept: dict[tuple[Path, str], tuple[dict[str, Stamp], dict[str, Any]]] = {}
"""what was read of a run, or of its results of some name, and the stamps of its files"""


def _attributes(path: Path) -> dict[str, Any]:
    stamps = _stamps([path / "run.zarr"])
    kept = _kept.get((path, ""))
    if kept and kept[0] == stamps:
        return kept[1]
    attributes = read_attributes(path)
    _kept[path, ""] = stamps, attributes
    return attributes


def _result_attributes(path: Path, name: str) -> dict[str, dict[str, Any]]:
    place = path / "results.zarr" / name
    stamps = _stamps(place.iterdir()) if place.is_dir() else {}
    kept = _kept.get((path, name))
    if kept and kept[0] == stamps:
        return kept[1]
    # Most of it is text that is the same in all runs.
    found = {
        analysis: {key: intern(value) if isinstance(value, str) else value for key, value in attributes.items()}
        for analysis, attributes in read_result_attributes(path, name).items()
    }
    # What could not be read is looked at again.
    if stamps.keys() == found.keys():
        _kept[path, name] = stamps, found
    return found


def _stamps(folders: Iterable[Path]) -> dict[str, Stamp]:
    """Of the metadata in each folder, by its name: what changes with them."""
    stamps = {}
    for folder in folders:
        with suppress(OSError):
            file = (folder / "zarr.json").stat()
            stamps[folder.name] = file.st_mtime_ns, file.st_size, file.st_ino
    return stamps


def with_results(run: Run | None, name: str) -> Run | None:
    """The run with the results of that name in place, if it has them."""
    return read_run(run.path, name) if run and name in run.results_names and name != run.results_name else run


def find(runs: Mapping[str, Run], run_id: Any) -> Run | None:
    """The run of that id, or None: nothing but an exact name from the scan leads to a path."""
    return runs.get(run_id) if isinstance(run_id, str) else None


def read_results(run: Run) -> dict[str, xr.Dataset]:
    """The results of a run, in memory; {} if there are none.

    Raises:
        ResultsError: if they cannot be read.
    """
    return {analysis: read_result(run, analysis) for analysis in run.analyzed}


def read_result(run: Run, analysis: str) -> xr.Dataset:
    """One of the results of a run, in memory.

    Raises:
        ResultsError: if it cannot be read.
    """
    return open_result(run.path, run.results_name, analysis)


def plain_reason(error: Exception, path: Path) -> str:
    """The message of an error with the run's name in place of its path on this computer."""
    return (str(error).replace(str(path), path.name) if path.name else str(error)) or type(error).__name__


def settings_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Flat table of a run's settings: `{"learning_rate": 0.05, "recorder.probe_every": 50}`.

    First the table of settings, which a run from somebody's own loop does not have, then whatever else describes it.
    """
    settings = attributes.get("settings")
    if isinstance(settings, Mapping) and settings.get("optimizer", "SGD") != "SGD":
        settings = {key: value for key, value in settings.items() if key not in SETTINGS_OF_SGD}
    rest = {key: value for key, value in attributes.items() if key not in _NOT_SETTINGS}
    return {**(flatten(settings) if isinstance(settings, Mapping) else {}), **flatten(rest)}


def provenance_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Flat table of where a run comes from: versions, command, computer, and what recording took of it."""
    parts = {"": attributes.get("provenance"), "recorder_seconds.": attributes.get("recorder_seconds")}
    tables = [flatten(part, prefix) for prefix, part in parts.items() if isinstance(part, Mapping)]
    return {key: value for table in tables for key, value in table.items()}
