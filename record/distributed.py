"""Data-parallel training: every process of torch.distributed makes a recorder, rank 0 writes.

The gradients are reduced before the optimizer sees them, so that the steps need nothing else. A probe is run by all
processes, each on a batch of its own, and averaged: the noise is that of the global batch.
"""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import RunError
from .format import GROWING

_Result = TypeVar("_Result")


def find_rank() -> tuple[int, int]:
    """Number of this process, and of all; (0, 1) where torch.distributed is not initialised."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def in_all_ranks(work: Callable[[], _Result], like: Tensor) -> _Result:
    """What `work` gives; an error in one process is one in all, so that none waits for another.

    Args:
        like: a tensor of the device by which the processes talk.

    Raises:
        RunError: if it failed in another process only.
    """
    if find_rank()[1] == 1:
        return work()
    result, failure = None, None
    try:
        result = work()
    except Exception as error:
        failure = error
    failed = like.new_tensor(float(failure is not None))
    dist.all_reduce(failed)
    if failure is not None:
        raise failure
    if failed:
        raise RunError("the probe failed in another process")
    return cast(_Result, result)


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean over the processes, all of which must call it."""
    _, count = find_rank()
    if count == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / count


def mean_gradients(gradients: Sequence[Tensor | None], sizes: Sequence[int], like: Tensor) -> list[Tensor | None]:
    """The means over the processes of flat gradients, in one exchange; None counts as zeros.

    Args:
        sizes: numbers of elements, since a process may have None where another has not.
        like: a tensor of the gradients' type and device.
    """
    if find_rank()[1] == 1:
        return list(gradients)
    parts = [like.new_zeros(n) if g is None else g for g, n in zip(gradients, sizes, strict=True)]
    return list(mean_over_ranks(torch.cat(parts)).split(list(sizes)))


def from_rank_0(vectors: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """What rank 0 has of some flat vectors, in one exchange; the others bring their own, of the same sizes."""
    if find_rank()[1] == 1:
        return list(vectors)
    together = torch.cat(list(vectors))
    dist.broadcast(together, 0)
    return list(together.split(list(sizes)))


def as_rank_0(decision: bool, like: Tensor) -> bool:
    """What rank 0 has decided; all processes must call it.

    Args:
        like: a tensor of the device by which the processes talk.
    """
    if find_rank()[1] == 1:
        return decision
    decided = like.new_tensor(float(decision))
    dist.broadcast(decided, 0)
    return bool(decided)


class SilentWriter:
    """In place of a `RunWriter` on the ranks that do not write."""

    committed = MappingProxyType(dict.fromkeys(GROWING, 0))

    def append(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    note = write_fixed = close = load_state_dict = append

    def bytes_on_disk(self) -> dict[str, int]:
        """None."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """As of a writer that has written nothing."""
        return {"committed": dict(self.committed), "snapshots": None}
