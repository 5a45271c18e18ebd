"""Analyze recorded runs: estimates with error bars, lazily with Dask, kept in `results.zarr`.

Each analysis is also a function of an opened run, `diffusion(open_run("runs/mine"))`; see `pipeline.estimate`.
"""

from functools import partial
from typing import Any

from thermodl.record.store import open_run

from . import physics
from .export import export
from .pipeline import AnalysisSettings, analyze, estimate
from .results import open_results

__all__ = ["AnalysisSettings", "analyze", "estimate", "export", "open_results", "open_run"]


def __getattr__(name: str) -> Any:
    """The analyses, by name."""
    if name.startswith("_") or name not in physics.names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(estimate, analysis=name)


def __dir__() -> list[str]:
    return sorted([*__all__, *physics.names()])
