"""Where analyses are computed: on the threads of this process, or on a cluster of `dask.distributed` that is running.

In this process memory can be limited. What is larger than memory is worked on in blocks whatever the limit (`blocks`),
so that it only says how many tasks run at a time, and the numbers are the same.

An analysis builds lazy graphs and computes some of them early, so that the place holds around the whole call. Tasks
keep the order of their sums wherever they run, and one that dies with its worker is made again by another: the numbers
are those of this process.

The workers read the recording themselves, so they must find its folder under the same path. Start them with the
allocator's two thresholds raised, MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_: distributed lowers the first, and
then every large temporary array is mapped anew; the same tasks took up to 2.7 times as long.
"""

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import dask.config
from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes

from thermodl.record.errors import first_line
from thermodl.record.store import BLOCK_BYTES

from .series import log_lags
from .settings import AnalysisError

_TIMEOUT_SECONDS = 5
_OF_PROCESS = 384 * 2**20
"""bytes that this process takes with nothing read"""
_BLOCKS_OF_TASK, _SUMS_OF_TASK = 4, 6
"""how many blocks of coordinates, and arrays of all lags and origins, a task needs with all that is made of them"""
_PACKAGES = ("python", "dask", "distributed", "cloudpickle", "thermodl", "numpy", "scipy", "xarray", "zarr", "numba")
"""which must be the same on the workers: code is sent by name, and arrays as they are in memory"""
_LOWERED = 65536
"""MALLOC_TRIM_THRESHOLD_ that distributed gives its workers"""


class ClusterError(AnalysisError):
    """A cluster that cannot be used, or is used no more; nothing that follows could be computed on it."""


@contextlib.contextmanager
def within_memory(limit: str | None, steps: int, lags_per_decade: int) -> Iterator[None]:
    """Compute what is computed inside with so few tasks at a time that this process takes no more than that.

    Args:
        limit: such as 4GB or 500MiB; None for as many tasks as there are processors.
        steps, lags_per_decade: of the run and its analyses, which need the more memory the longer and the more.

    Raises:
        AnalysisError: if that is no size, or a single task needs more.
    """
    if limit is None:
        yield
        return
    if _has_cluster():
        raise AnalysisError("memory is that of this process; on a cluster, give dask worker a --memory-limit")
    try:
        allowed = parse_bytes(limit)
    except ValueError:
        raise AnalysisError(f"memory {limit!r}: expected a size such as 4GB or 500MiB") from None
    lags = len(log_lags(steps // 4, lags_per_decade))
    task = _BLOCKS_OF_TASK * BLOCK_BYTES + _SUMS_OF_TASK * lags * steps * 8
    if allowed < _OF_PROCESS + task:
        raise AnalysisError(
            f"memory {limit}: {steps} steps with {lags} lags take {format_bytes(_OF_PROCESS + task)} at least; "
            "allow more, or choose fewer lags per decade"
        )
    tasks = min((allowed - _OF_PROCESS) // task, CPU_COUNT)
    with dask.config.set(scheduler="threads", num_workers=tasks):
        yield


@contextlib.contextmanager
def on_cluster(address: str | None) -> Iterator[None]:
    """Compute what is computed inside on the cluster whose scheduler has this address; None: in this process.

    Raises:
        ClusterError: if `distributed` is not installed, nothing answers there, there is no worker, or versions differ.
    """
    if address is None:
        yield
        return
    if not re.fullmatch(r"[a-z]+://\S+:\d+", address):
        raise ClusterError(f"scheduler {address!r}: expected an address such as tcp://host:8786")
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            f"the scheduler {address} is reached with distributed, which is not installed: "
            "pip install 'thermodl[cluster]'"
        ) from error
    with _connect(distributed, address) as client:
        _check_workers(client, address)
        yield


def as_seen_by_workers(path: Path) -> Path:
    """The path as it is sent to a cluster, whose workers have working directories of their own."""
    return path.absolute() if _has_cluster() else path


@contextlib.contextmanager
def naming_losses(path: Path) -> Iterator[None]:
    """Say in the user's terms what a cluster did to a computation inside, if one is in use.

    Raises:
        ClusterError: if the scheduler was lost.
        AnalysisError: if every worker that took a task died of it, or one does not find the run.
    """
    try:
        yield
    except Exception as error:
        distributed = sys.modules.get("distributed")
        if distributed is None:
            raise
        if isinstance(error, distributed.scheduler.KilledWorker):
            raise AnalysisError(
                "workers of the cluster died one after the other of the same task; most often they ran out of "
                "memory (dask worker --memory-limit)"
            ) from error
        lost = (distributed.comm.CommClosedError, distributed.client.FutureCancelledError)
        if isinstance(error, lost):
            raise ClusterError(f"the cluster was lost on the way: {first_line(error)}") from error
        if isinstance(error, FileNotFoundError) and path.exists():
            raise AnalysisError(
                f"a worker of the cluster does not find {path}; it must see the run under the same path"
            ) from error
        raise


def _has_cluster() -> bool:
    """Whether a client of a cluster is in use."""
    distributed = sys.modules.get("distributed")
    try:
        return distributed is not None and bool(distributed.default_client())
    except ValueError:
        return False


def _connect(distributed: ModuleType, address: str) -> Any:
    try:
        with warnings.catch_warnings():
            # All that differs is compared below, and refused.
            warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
            return distributed.Client(address, timeout=_TIMEOUT_SECONDS)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ClusterError(
            f"no scheduler answers at {address} ({type(error).__name__}: {first_line(error)}); "
            "dask scheduler starts one and prints its address"
        ) from error


def _check_workers(client: Any, address: str) -> None:
    found = client.get_versions(packages=_PACKAGES)
    workers: Mapping[str, Any] = found["workers"]
    if not workers:
        raise ClusterError(f"the scheduler {address} has no workers; start some with dask worker {address}")
    here = _versions(found["client"])
    for worker, there in workers.items():
        other = _versions(there)
        different = [name for name in _PACKAGES if here[name] != other[name]]
        if different:
            listed = ", ".join(f"{name} {other[name] or 'missing'} (here {here[name]})" for name in different)
            raise ClusterError(f"the worker {worker} has other versions than this process: {listed}")
    lowered = [
        worker for worker, value in client.run(os.getenv, "MALLOC_TRIM_THRESHOLD_").items() if _is_lowered(value)
    ]
    if lowered:
        warnings.warn(
            f"{len(lowered)} of {len(workers)} workers have MALLOC_TRIM_THRESHOLD_={_LOWERED} from distributed, with "
            "which analyses take up to 2.7 times as long; start them with MALLOC_TRIM_THRESHOLD_=1073741824 "
            "MALLOC_MMAP_THRESHOLD_=1073741824 dask worker …",
            stacklevel=4,
        )


def _versions(found: Mapping[str, Any]) -> dict[str, str | None]:
    """Of each package; of Python the release series, whose bytecode can be exchanged."""
    packages = dict(found["packages"])
    packages["python"] = ".".join(str(packages["python"]).split(".")[:2])
    return {name: packages.get(name) for name in _PACKAGES}


def _is_lowered(value: str | None) -> bool:
    return value is not None and value.isdigit() and int(value) <= _LOWERED
