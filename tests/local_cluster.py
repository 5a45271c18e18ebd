"""A cluster of dask.distributed on this machine: a scheduler and its workers, each a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

WITH_THRESHOLDS = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}


@dataclass
class Cluster:
    """A scheduler and its workers, each a process of its own."""

    address: str
    workers: dict[str, subprocess.Popen[bytes]]


@contextlib.contextmanager
def running_cluster(folder: Path, workers: int, environment: dict[str, str]) -> Iterator[Cluster]:
    """A scheduler and some workers, in a working directory that is not that of the caller."""
    import distributed  # the tests that need it are skipped where it is missing

    folder.mkdir()
    found = folder / "scheduler.json"
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments]
        with (folder / f"log{len(started)}").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)
        return process

    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(found))
        wait_for(lambda: found.is_file() and found.read_text().endswith("}"))
        address = json.loads(found.read_text())["address"]
        made = {
            f"worker{i}": start(
                "worker", address, "--name", f"worker{i}", "--nthreads", "1", "--no-dashboard", "--no-nanny",
                "--local-directory", str(folder),
            )
            for i in range(workers)
        }  # fmt: skip
        if made:
            with distributed.Client(address, timeout=20, set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=60)
        yield Cluster(address, made)
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
