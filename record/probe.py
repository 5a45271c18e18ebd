"""The independent-batch probe: one more gradient g′ at the same θ, without leaving a trace in the training.

With g and g′ from independent batches of the same size, drawn in the same way, ½‖g−g′‖² is unbiased for tr C and g·g′
for ‖∇L‖², whatever the architecture; g−g′ is the noise that moved θ, which gives the response without perturbing.
"""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn


def probe_gradient(
    model: nn.Module, parameters: Sequence[Tensor], loss: Callable[[], Tensor], seed: int
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradient of an independent mini-batch at the present parameters.

    `.grad`, buffers (BatchNorm statistics), and the random states of torch, numpy and Python are as before
    afterwards. Inside, torch draws from `seed`, so that a dropout mask of the probe is never that of the next step.

    Args:
        loss: a function that draws a batch of its own and returns the loss, a scalar tensor.

    Returns:
        The loss, and one gradient per parameter (None where the loss does not depend on it, or it is frozen).

    Raises:
        ValueError: if the loss is no scalar tensor with a gradient, or there are no more batches.
    """
    with undisturbed(model, parameters), torch.enable_grad():
        torch.manual_seed(seed)
        value = draw_loss(loss)
        free = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = iter(torch.autograd.grad(value, free, allow_unused=True))
        return value.detach(), [next(gradients) if parameter.requires_grad else None for parameter in parameters]


def draw_loss(loss: Callable[[], Tensor]) -> Tensor:
    """The loss of a new mini-batch, a tensor without dimensions.

    Raises:
        ValueError: if it is no scalar tensor with a gradient, or there are no more batches.
    """
    try:
        value = loss()
    except StopIteration:
        raise ValueError("the probe has no more batches; it must go on for ever") from None
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise ValueError(f"probe must return a mini-batch loss, a scalar tensor with a gradient; got {value!r}")
    return value.reshape(())


@contextlib.contextmanager
def undisturbed(model: nn.Module, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the model may run in training mode: its buffers and all random states are as before afterwards."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {parameter.device for parameter in parameters if parameter.device.type == "cuda"}
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's stream is saved, not used
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
