"""Nothing lost: `kill -9` of a recording at random instants, and what is then on the disk.

    python tests/benchmarks/kill.py [--kills 200] [--steps 1200] [--seed 0]

Children of one warm process record the same small training, and are killed at instants drawn uniformly over the time
that a recording takes, from its creation to its end. After each kill the store must open, `thermodl check` must find
no defect, and every committed row of every array must be bit for bit that of a recording that was not killed. What is
missing are the steps in memory: at most 128, half of which may be on their way to the disk. Needs `fork`.
"""

import argparse
import itertools
import mmap
import os
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

from thermodl.analyze.check import check_run
from thermodl.record import Recorder, RecorderSettings, open_run
from thermodl.record.buffer import StepBuffer
from thermodl.record.errors import RunError

SETTINGS = RecorderSettings(sketch_size=16, probe_every=50, snapshot_every=10, snapshot_tolerance=0.1)


def record(folder: Path, steps: int, done: mmap.mmap) -> None:
    """The same training every time; after each step its number goes where the parent sees it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    x, y = torch.randn(steps, 8, 10), torch.randn(steps, 8, 3)

    drawn = itertools.count(1)

    def probe() -> torch.Tensor:
        last = -next(drawn)
        return (model(x[last]) - y[last]).square().mean()

    with Recorder(model, optimizer, folder, settings=SETTINGS, probe=probe) as recorder:
        for step in range(steps):
            loss = (model(x[step]) - y[step]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss)
            done[:8] = struct.pack("q", step + 1)


def fork(folder: Path, steps: int, done: mmap.mmap) -> int:
    """Start a recording in a child; its process number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            record(folder, steps, done)
            code = 0
        finally:
            os._exit(code)
    return child


def differences(run: xr.Dataset, whole: xr.Dataset) -> list[str]:
    """Arrays whose entries are not those of the recording that was not killed; wall time differs of course."""
    committed = {dim for dim, count in run.attrs["committed"].items() if count}
    found = [
        f"{name} is missing"
        for name, values in whole.items()
        if name not in run and (values.dims[-1] in committed or name == "initial_parameters")
    ]
    for name in set(run.data_vars) & set(whole.data_vars) - {"wall_time"}:
        same = whole[name].isel({dim: slice(size) for dim, size in run[name].sizes.items()})
        if not np.array_equal(run[name].values, same.values, equal_nan=run[name].dtype.kind == "f"):
            found.append(f"{name} differs")
    return found


def main() -> int:
    """Kill, look, and print a summary; 1 if anything was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, outcomes, wrong = np.random.default_rng(options.seed), Counter(), []
    missing, committed, done = [], [], mmap.mmap(-1, 8)
    with tempfile.TemporaryDirectory() as place:
        record(Path(place) / "warm", 300, done)
        started = time.monotonic()
        _, status = os.waitpid(fork(Path(place) / "whole", options.steps, done), 0)
        seconds = time.monotonic() - started
        if status:
            print("the recording that was not to be killed failed")
            return 1
        whole = open_run(Path(place) / "whole").compute()
        held = 2 * StepBuffer(4, 2, 16, torch.device("cpu"), torch.float64).capacity
        for attempt in range(options.kills):
            folder = Path(place) / f"run{attempt}"
            done[:8] = struct.pack("q", 0)
            child = fork(folder, options.steps, done)
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            (made,) = struct.unpack("q", done[:8])
            try:
                run = open_run(folder).compute()
                attributes, checks = check_run(folder)
            except RunError as error:
                # It was being created: no step had been made.
                outcomes["killed before the store was complete"] += 1
                wrong += [f"kill {attempt}: {made} steps made, and {error}"] if made else []
                continue
            steps = attributes["committed"]["step"]
            outcomes["finished before the kill" if attributes["state"] == "finished" else "killed while recording"] += 1
            defects = [f"{one.name}: {defect}" for one in checks for defect in one.defects]
            if made == 0:
                # Between the creation of one array and the next; what is there must be right, but not all is there.
                defects = [defect for defect in defects if "is missing" not in defect]
            else:
                defects += differences(run, whole)
            lost = made - steps
            if lost > held:
                defects.append(f"{lost} steps are missing, more than the {held} in memory")
            wrong += [f"kill {attempt} at step {made}: {defect}" for defect in defects]
            missing.append(lost)
            committed.append(steps)
    print(f"{options.kills} kills over {seconds:.2f} s and {options.steps} steps each, {held} of them in memory")
    for outcome, count in outcomes.items():
        print(f"  {count:4d} {outcome}")
    if missing:
        at = np.array(missing)
        print(
            f"  committed steps: median {np.median(committed):.0f}, {np.sum(np.array(committed) > 0)} stores with some"
        )
        print(
            f"  missing steps: median {np.median(at):.0f}, most {at.max()}; more than {held // 2} in "
            f"{np.sum(at > held // 2)} kills, more than {held} in {np.sum(at > held)}"
        )
    print(f"  {len(wrong)} defects or differences")
    for line in wrong[:20]:
        print(f"  {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
