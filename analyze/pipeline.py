"""Run analyses on a recorded run: lazily, in one place that computes, each result kept under a hash of what made it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

from thermodl.record.store import UserError, open_run, read_attributes

from . import physics
from .quantities import MIN_STEPS
from .results import FORMAT_VERSION, read_result_attributes, write_results
from .settings import AnalysisError, AnalysisSettings, make_settings

_COORDINATES = {
    "lag": ("step", "lag", "时间差"),
    "lag_sgd_time": ("parameter2 loss-1", "lag in SGD time", "时间差（SGD 时间）"),
    "waiting_time": ("step", "waiting time", "等待时间"),
    "window_step": ("step", "optimizer step", "优化步"),
    "window_sgd_time": ("parameter2 loss-1", "SGD time", "SGD 时间"),
    "segment_start": ("step", "first step", "起始步"),
    "segment_stop": ("step", "end step", "结束步"),
}

__all__ = ["AnalysisSettings", "analyze", "cache_key", "make_settings"]


def analyze(
    path: str | Path,
    only: Sequence[str] | None = None,
    settings: AnalysisSettings | None = None,
    *,
    name: str = "default",
    force: bool = False,
    progress: Callable[[str, str], None] | None = None,
) -> dict[str, str]:
    """Analyze one run and keep the results in its `results.zarr`.

    Args:
        path: the run folder.
        only: names of analyses; all by default.
        settings: how; the defaults by default.
        name: under which name the results are kept, so that several settings live side by side.
        force: compute again even what is there.
        progress: called with an analysis and `start`, `computed`, `cached` or `failed`.

    Returns:
        For each analysis that could not be made, the reason.

    Raises:
        RunError: if the run cannot be read.
        AnalysisError: if an analysis has an unknown name, or the run is too short for any.
    """
    settings = settings or AnalysisSettings()
    wanted = _check_names(only)
    report = progress or (lambda *_: None)
    attributes = read_attributes(path)
    if attributes["committed"]["step"] < MIN_STEPS:
        raise AnalysisError(
            f"{path} has {attributes['committed']['step']} committed steps; at least {MIN_STEPS} are needed"
        )
    stored = read_result_attributes(path, name)
    run: xr.Dataset | None = None
    reasons = {}
    for analysis in wanted:
        module = physics.load(analysis)
        key = cache_key(attributes, analysis, module.VERSION, _used(settings, module.USES))
        if not force and stored.get(analysis, {}).get("cache_key") == key:
            report(analysis, "cached")
            continue
        report(analysis, "start")
        run = open_run(path) if run is None else run
        try:
            results = module.estimate(run, settings).compute()
        except UserError as error:
            reasons[analysis] = str(error)
            report(analysis, "failed")
            continue
        write_results(path, name, analysis, _label(results, module, analysis, attributes, settings, key))
        report(analysis, "computed")
    return reasons


def cache_key(attributes: dict[str, Any], analysis: str, analysis_version: int, used: dict[str, Any]) -> str:
    """Hash of everything that a result depends on: the recording and how much of it, the method, and its settings."""
    parts = {
        "run": [attributes.get("run_id"), attributes.get("started")],
        "committed": attributes["committed"],
        "analysis": [analysis, analysis_version],
        "settings": used,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _check_names(only: Sequence[str] | None) -> list[str]:
    known = physics.names()
    for name in only or ():
        if name not in known:
            raise AnalysisError(f"there is no analysis {name!r}; expected one of {', '.join(known)}")
    return list(only) if only else known


def _used(settings: AnalysisSettings, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names}


def _label(
    results: xr.Dataset, module: Any, analysis: str, attributes: dict[str, Any], settings: AnalysisSettings, key: str
) -> xr.Dataset:
    text = {
        "title": module.TITLE,
        "title_zh": module.TITLE_ZH,
        "formula": module.FORMULA,
        "explanation": module.EXPLANATION,
        "explanation_zh": module.EXPLANATION_ZH,
        "method": module.METHOD,
        "method_zh": module.METHOD_ZH,
        "reference": module.REFERENCE,
    }
    for name, (units, en, zh) in _COORDINATES.items():
        if name in results.coords:
            results[name].attrs.update(units=units, long_name=en, long_name_zh=zh)
    return results.assign_attrs(
        format_version=FORMAT_VERSION,
        analysis=analysis,
        analysis_version=module.VERSION,
        cache_key=key,
        run_id=attributes.get("run_id", ""),
        committed_steps=attributes["committed"]["step"],
        settings=json.dumps(_used(settings, module.USES)),
        verdicts=json.dumps(results.attrs.get("verdicts", []), ensure_ascii=False),
        segment_stationary=bool(results.attrs["segment_stationary"]),
        thermodl_version=version("thermodl"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **text,
    )
