"""Analyze recorded runs: estimates with error bars, lazily with Dask, kept in `results.zarr`."""

from thermodl.record.store import open_run


from .results import open_results

__all__ = ["open_results", "open_run"]
