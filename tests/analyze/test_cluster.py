"""Analyses on a cluster of dask.distributed: the numbers of this process, also when a worker dies; clear refusals."""

import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
import xarray as xr
from local_cluster import WITH_THRESHOLDS, Cluster, running_cluster
from made_up import write_run

from thermodl import cli
from thermodl.analyze import analyze, execution, open_results
from thermodl.analyze.execution import ClusterError
from thermodl.analyze.settings import AnalysisError

distributed = pytest.importorskip("distributed")


def _kill_one_at_work(cluster: Cluster, events: list[str]) -> None:
    """Kill the first worker that is seen to have a task."""
    with distributed.Client(cluster.address, set_as_default=False) as client:
        names = {address: worker["name"] for address, worker in client.scheduler_info()["workers"].items()}
        busy: list[str] = []
        while not busy:
            busy = [address for address, tasks in client.processing().items() if tasks]
        cluster.workers[names[busy[0]]].send_signal(signal.SIGKILL)
        events.append(f"killed {names[busy[0]]}")


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_half_way_gives_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler and two worker processes, one of which is killed while it works on an analysis: bit for bit.

    The run is named by a relative path, and the workers have another working directory.
    """
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "local", 2000, groups=3, sketch=32)
    write_run(tmp_path / "spread", 2000, groups=3, sketch=32)
    only = ["stationarity", "diffusion", "correlation", "response", "noise"]
    assert analyze("local", only) == {}
    events: list[str] = []
    with running_cluster(tmp_path / "cluster", 2, WITH_THRESHOLDS) as cluster:
        killer = threading.Thread(target=_kill_one_at_work, args=(cluster, events))

        def progress(analysis: str, state: str) -> None:
            events.append(f"{analysis} {state}")
            if events[-1] == "diffusion start":
                killer.start()

        assert analyze("spread", only, progress=progress, scheduler=cluster.address) == {}
        killer.join()
        alive = [name for name, process in cluster.workers.items() if process.poll() is None]
    killed = [event for event in events if event.startswith("killed")]
    assert len(killed) == 1
    assert len(alive) == 1
    assert events.index("diffusion start") < events.index(killed[0]) < events.index("diffusion computed"), events
    here, there = open_results("local"), open_results("spread")
    assert here.keys() == there.keys()
    for analysis, expected in here.items():
        xr.testing.assert_equal(there[analysis], expected)


@pytest.mark.slow
def test_workers_are_looked_at_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker, the allocator's threshold that distributed sets, and other versions are each named."""
    write_run(tmp_path / "run", 300, groups=2, sketch=8)
    with (
        running_cluster(tmp_path / "empty", 0, {}) as cluster,
        pytest.raises(ClusterError, match="has no workers; start some with dask worker tcp:"),
    ):
        analyze(tmp_path / "run", scheduler=cluster.address)
    lowered = {"MALLOC_TRIM_THRESHOLD_": "65536"}
    with running_cluster(tmp_path / "cluster", 1, lowered) as cluster:
        with pytest.warns(UserWarning, match="1 of 1 workers have MALLOC_TRIM_THRESHOLD_=65536"):
            assert analyze(tmp_path / "run", ["dissipation"], scheduler=cluster.address) == {}
        with (
            pytest.warns(UserWarning, match="MALLOC_TRIM_THRESHOLD_"),
            pytest.raises(AnalysisError, match="memory is that of this process; on a cluster, give dask worker"),
        ):
            analyze(tmp_path / "run", ["dissipation"], scheduler=cluster.address, memory="1GiB")
        versions = execution._versions
        newer = {"zarr": "99.0"}
        # The first that is asked about is this process.
        answers = iter([newer, {}])
        monkeypatch.setattr(execution, "_versions", lambda found: versions(found) | next(answers))
        with pytest.raises(ClusterError, match=r"other versions than this process: zarr \S+ \(here 99\.0\)$"):
            analyze(tmp_path / "run", scheduler=cluster.address)


def test_an_address_where_nothing_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says so once, not for every run, and exits with 2."""
    write_run(tmp_path / "run", 300, groups=2, sketch=8)
    monkeypatch.setattr(execution, "_TIMEOUT_SECONDS", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    runs = [str(tmp_path / "run")] * 2
    monkeypatch.setattr(sys, "argv", ["thermodl", "analyze", *runs, "--scheduler", address])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert said.err.count(f"no scheduler answers at {address}") == 1
    assert "Traceback" not in said.err
    assert not (tmp_path / "run" / "results.zarr").exists()


@pytest.mark.parametrize("address", ["", "host:8786", "tcp://host", "threads"])
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    """The error names what came and what is expected."""
    with pytest.raises(ClusterError, match=f"scheduler '{address}': expected an address such as tcp://host:8786"):
        analyze(tmp_path, scheduler=address)


def test_without_distributed_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install 'thermodl[cluster]'` is what the user has to do."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"not installed: pip install 'thermodl\[cluster\]'"):
        analyze(tmp_path, scheduler="tcp://127.0.0.1:8786")
