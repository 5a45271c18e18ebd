"""Analyze recorded runs: estimates with error bars, lazily with Dask, kept in `results.zarr`.

Each analysis is also a function of an opened run, `diffusion(open_run("runs/mine"))`; see `pipeline.estimate`. What
computes is loaded when it is first used, so that reading results takes no half a second for numba and scipy.stats.
"""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from thermodl.record.store import open_run

from . import physics
from .export import export
from .results import open_results

if TYPE_CHECKING:
    from .pipeline import AnalysisSettings, analyze, estimate

__all__ = ["AnalysisSettings", "analyze", "estimate", "export", "open_results", "open_run"]


def __getattr__(name: str) -> Any:
    """What computes, and the analyses by name."""
    if name in __all__:
        return getattr(import_module(f"{__name__}.pipeline"), name)
    if name.startswith("_") or name not in physics.names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(import_module(f"{__name__}.pipeline").estimate, analysis=name)


def __dir__() -> list[str]:
    return sorted([*__all__, *physics.names()])
