"""The same training by one process or by several, each of which draws its part of every global batch.

    torchrun --nproc_per_node 2 tests/record/data_parallel.py FOLDER

Started by `test_any_loop`. Each process also trains without a recorder, and says whether it ends at the same weights
and buffers; so it does with BatchNorm and dropout, and where the recording breaks in one process alone.
"""

import contextlib
import gc
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from thermodl.record import Recorder, RecorderSettings
from thermodl.record.distributed import find_rank, mean_over_ranks
from thermodl.record.schedule import Schedule

STEPS, SIZE = 8, 8
GAPS = "burst:2/3"
"""a schedule under which two steps have no inner products"""


def make_model() -> nn.Sequential:
    """A small net; always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Linear(3, 3))


class NormalizedModel(nn.Module):
    """Buffers that every forward pass synchronizes, a random stream of each process, and a layer without use."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.used = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def local_batch(seed: int) -> tuple[Tensor, Tensor]:
    """This process's part of a global batch."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(SIZE, 6, generator=generator), torch.randint(3, (SIZE,), generator=generator)
    rank, ranks = find_rank()
    part = slice(rank * SIZE // ranks, (rank + 1) * SIZE // ranks)
    return x[part], y[part]


def train(model: nn.Module, folder: Path | None, breaks: str = "", products_every: Schedule = 1) -> None:
    """SGD with momentum; a probe at every second step. The store breaks in rank 0 or the probe in rank 1, halfway."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    probes = iter(range(1000, 2000))

    def probe() -> Tensor:
        if breaks == "probe" and find_rank()[0] == 1 and recorder.step >= STEPS // 2:
            raise ArithmeticError("no batch")
        return loss_of(next(probes))

    def loss_of(seed: int) -> Tensor:
        x, y = local_batch(seed)
        return F.cross_entropy(model(x), y)

    # A budget of which nothing is left out: the processes must agree on each probe all the same.
    settings = RecorderSettings(
        products_every=products_every,
        probe_every=2,
        curvature_every=2,
        snapshot_every=1,
        sketch_size=8,
        max_overhead=1e9,
    )
    recorder = folder and Recorder(model, optimizer, folder, probe=probe, settings=settings)
    with recorder or contextlib.nullcontext():
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = loss_of(step)
            loss.backward()
            optimizer.step()
            if recorder:
                recorder.log(loss=mean_over_ranks(loss.detach()))
                if breaks == "store" and find_rank()[0] == 0 and step == STEPS // 2:
                    shutil.rmtree(folder)
                    recorder.flush()


def say_whether_disturbed(
    make: Callable[[], nn.Module], folder: Path, breaks: str = "", products_every: Schedule = 1, **options: bool
) -> None:
    """Train with and without a recorder."""
    states = []
    for target in (folder, None):
        model = nn.parallel.DistributedDataParallel(make(), **options)
        torch.manual_seed(find_rank()[0])
        train(model, target, breaks, products_every)
        states.append(model.state_dict())
    same = all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    # To a file of its own: the processes' lines may run into each other.
    said = folder.parent / f"{folder.name}-{find_rank()[0]}.said"
    said.write_text("undisturbed" if same else "disturbed", "utf-8")


if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    say_whether_disturbed(make_model, Path(sys.argv[1]) / "two")
    say_whether_disturbed(make_model, Path(sys.argv[1]) / "two_gaps", products_every=GAPS)
    say_whether_disturbed(NormalizedModel, Path(sys.argv[1]) / "normalized", find_unused_parameters=True)
    for breaks in ("store", "probe"):
        say_whether_disturbed(make_model, Path(sys.argv[1]) / breaks, breaks)
    # DDP models hold the process group in cycles: its threads must end before the interpreter does, or it may abort.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()
