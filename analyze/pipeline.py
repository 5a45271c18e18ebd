"""Run analyses on a recorded run: lazily, in one place that computes, each result kept under a hash of what made it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

from thermodl.record.format import MIN_STEPS
from thermodl.record.store import read_attributes, run_folder
from thermodl.record.words import counted

from . import physics, versions
from .execution import ClusterError, as_seen_by_workers, naming_losses, on_cluster, within_memory
from .recording import open_whole_run
from .results import FORMAT_VERSION, ResultsError, open_result, read_result_attributes, write_results
from .settings import AnalysisError, AnalysisSettings, NotDefinedError, make_settings
from .verdicts import verdict

_COORDINATES = {
    "lag": ("step", "lag", "时间差"),
    "lag_sgd_time": ("parameter2 loss-1", "lag in SGD time", "时间差（SGD 时间）"),
    "waiting_time": ("step", "waiting time", "等待时间"),
    "window_step": ("step", "optimizer step", "优化步"),
    "window_sgd_time": ("parameter2 loss-1", "SGD time", "SGD 时间"),
    "segment_start": ("step", "first step", "起始步"),
    "segment_stop": ("step", "end step", "结束步"),
}

__all__ = ["AnalysisSettings", "analyze", "cache_key", "estimate", "make_settings"]


def analyze(
    path: str | Path,
    only: Sequence[str] | None = None,
    settings: AnalysisSettings | None = None,
    *,
    name: str = "default",
    force: bool = False,
    progress: Callable[[str, str], None] | None = None,
    scheduler: str | None = None,
    memory: str | None = None,
) -> dict[str, Exception]:
    """Analyze one run and keep the results in its `results.zarr`.

    Args:
        path: the run folder.
        only: names of analyses; all by default.
        settings: how; the defaults by default.
        name: under which name the results are kept, so that several settings live side by side.
        force: compute again even what is there.
        progress: called with an analysis and `start`, `computed`, `cached`, `failed` or `not defined: …`.
        scheduler: address of a dask.distributed scheduler whose workers compute; by default the client that is in use,
            or else threads of this process.
        memory: what this process may take, such as 4GB; the numbers do not depend on it. By default there is no limit,
            and a task on each processor.

    Returns:
        For each analysis that could not be made, why: NotDefinedError where this kind of training has no such
        quantity or it was not recorded, another UserError where the run or the settings forbid it, any other exception
        for a defect of ours.

    Raises:
        RunError: if the run cannot be read.
        AnalysisError: if an analysis has an unknown name, the run is too short for any, or the memory too little for
            one; ClusterError if the cluster cannot be used, or is lost.

    >>> analyze("runs/mine", ["temperature", "diffusion"])
    {}
    """
    path, wanted, settings = Path(path), _check_names(only), settings or AnalysisSettings()
    with on_cluster(scheduler):
        steps = read_attributes(path)["committed"]["step"]
        with within_memory(memory, steps, settings.lags_per_decade):
            return _analyze(path, wanted, settings, name, force, progress)


def _analyze(
    path: Path,
    wanted: list[str],
    settings: AnalysisSettings,
    name: str,
    force: bool,
    progress: Callable[[str, str], None] | None,
) -> dict[str, Exception]:
    report = progress or (lambda *_: None)
    attributes = read_attributes(path)
    if attributes["committed"]["step"] < MIN_STEPS:
        raise AnalysisError(
            f"{path} has {counted(attributes['committed']['step'], 'committed step')}; at least {MIN_STEPS} are needed"
        )
    files = _count_bytes(path)
    run: xr.Dataset | None = None
    errors: dict[str, Exception] = {}
    for analysis in wanted:
        module = physics.load(analysis)
        key = cache_key(attributes, files, analysis, _used(settings, module.USES))
        if not force and _holds(path, name, analysis, key):
            report(analysis, "cached")
            continue
        report(analysis, "start")
        run = open_whole_run(as_seen_by_workers(path)) if run is None else run
        try:
            with naming_losses(path):
                results, undefined = _estimate(module, run, settings)
            labelled = _label(results, module, analysis, attributes, settings)
            # Without a key what is not defined is found out, and said, every time.
            kept = labelled.assign_attrs(defined=False) if undefined else labelled.assign_attrs(cache_key=key)
            write_results(path, name, analysis, kept)
        except (BrokenPipeError, ClusterError):  # nothing that follows could be printed, or computed
            raise
        except Exception as error:  # one analysis that breaks must not cost the others
            errors[analysis] = error
            report(analysis, "failed")
        else:
            report(analysis, f"not defined: {undefined}" if undefined else "computed")
            errors |= {analysis: undefined} if undefined else {}
    return errors


def _estimate(module: Any, run: xr.Dataset, settings: AnalysisSettings) -> tuple[xr.Dataset, NotDefinedError | None]:
    """Results in memory; of what is not defined for this training none but a verdict that says why, and the error."""
    try:
        return module.estimate(run, settings).compute(), None
    except NotDefinedError as error:
        why = verdict("", "untrusted", "not-defined", f"Not defined: {error}.", f"没有定义：{error.zh}。")
        return xr.Dataset(attrs={"verdicts": [why], "segment_stationary": False}), error


def estimate(run: xr.Dataset, analysis: str, **settings: Any) -> xr.Dataset:
    """One analysis of an opened run, in memory, with nothing kept; `thermodl.analyze.<analysis>` is the same.

    Args:
        run: from `open_run`. analysis: its name. settings: those of AnalysisSettings that are not the defaults.

    Returns:
        A plain dataset, as docs/results.md describes, without `cache_key` and `digest`.

    Raises:
        AnalysisError: if the run or the settings forbid it; NotDefinedError if this kind of training has no such
            quantity or it was not recorded.

    >>> from thermodl.analyze import diffusion
    >>> results = diffusion(open_run("runs/mine"), segment="100:500")
    >>> results["diffusion_coefficient"].dims, results["diffusion_coefficient_stderr"].dims
    (('group',), ('group',))
    >>> results.attrs["segment"]
    [100, 500]
    """
    (analysis,) = _check_names([analysis])
    if run.sizes["step"] < MIN_STEPS:
        steps = counted(run.sizes["step"], "committed step")
        raise AnalysisError(f"the run has {steps}; at least {MIN_STEPS} are needed")
    module, made_with = physics.load(analysis), make_settings(**settings)
    results = module.estimate(run, made_with).compute()
    return _label(results, module, analysis, run.attrs, made_with)


def cache_key(attributes: dict[str, Any], files: dict[str, int], analysis: str, used: dict[str, Any]) -> str:
    """Hash of everything that a result depends on: the recording and how much of it, the method, and its settings.

    `files` are the bytes of each array, so that a recording which lost some since is read, and refused, again.
    """
    parts = {
        "run": [attributes.get("run_id"), attributes.get("started"), files],
        "committed": attributes["committed"],
        "analysis": [analysis, versions.ANALYSES[analysis], versions.KERNELS],
        "settings": used,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _count_bytes(path: str | Path) -> dict[str, int]:
    """Bytes that the chunks of each array take on the disk."""
    arrays = sorted(entry for entry in (run_folder(path) / "run.zarr").iterdir() if entry.is_dir())
    return {
        array.name: sum(file.stat().st_size for file in array.rglob("*") if file.is_file() and file.name != "zarr.json")
        for array in arrays
    }


def _holds(path: str | Path, name: str, analysis: str, key: str) -> bool:
    """Whether results of this key are stored, and can be read."""
    if read_result_attributes(path, name).get(analysis, {}).get("cache_key") != key:
        return False
    try:
        open_result(path, name, analysis)
    except ResultsError:
        return False
    return True


def _check_names(only: Sequence[str] | None) -> list[str]:
    known = physics.names()
    for name in only or ():
        if name not in known:
            raise AnalysisError(f"there is no analysis {name!r}; expected one of {', '.join(known)}")
    return list(only) if only else known


def _used(settings: AnalysisSettings, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names}


def _label(
    results: xr.Dataset, module: Any, analysis: str, attributes: Mapping[str, Any], settings: AnalysisSettings
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
    several_clocks = len({layer.get("optimizer_group") for layer in attributes.get("layers", ())}) > 1
    for name, (units, en, zh) in _COORDINATES.items():
        if name in results.coords:
            if name.endswith("sgd_time") and several_clocks:
                en, zh = f"{en} of the first optimizer group", f"{zh}，按第一个优化器参数组"
            results[name].attrs.update(units=units, long_name=en, long_name_zh=zh)
    return results.assign_attrs(
        format_version=FORMAT_VERSION,
        analysis=analysis,
        analysis_version=versions.ANALYSES[analysis],
        kernels_version=versions.KERNELS,
        run_id=attributes.get("run_id", ""),
        started=attributes.get("started"),
        committed_steps=attributes["committed"]["step"],
        settings=json.dumps(_used(settings, module.USES)),
        verdicts=json.dumps(results.attrs.get("verdicts", []), ensure_ascii=False),
        segment_stationary=bool(results.attrs["segment_stationary"]),
        thermodl_version=version("thermodl"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **text,
    )
