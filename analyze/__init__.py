"""Analyze recorded runs: estimates with error bars, lazily with Dask, kept in `results.zarr`."""

from thermodl.record.store import open_run

from .pipeline import AnalysisSettings, analyze
from .results import open_results

__all__ = ["AnalysisSettings", "analyze", "open_results", "open_run"]
