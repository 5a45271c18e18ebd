"""Noise of the gradient from the gradients of single samples, by torch.func, where the model allows it.

With g_i the gradient of the loss of sample i, of B that were drawn independently,

    tr Ĉ₁ = Σ‖g_i − ḡ‖²/(B−1) = (Σ‖g_i‖² − ‖Σg_i‖²/B)/(B−1)

is unbiased for the trace of the covariance of one sample's gradient (physics.md 1.1, per-sample). The mean gradient of
b independent samples has tr C = tr C₁/b. One batch gives it to a relative √(2/((B−1)d_eff)) where gradients are
Gaussian, and worse where few samples have most of it; the gradients themselves are kept in no place.

The gradient of one sample is not defined where samples meet in the forward pass, as in BatchNorm that is training.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

from .layers import unwrap_model
from .probe import undisturbed

Samples = Callable[[], tuple[Any, Any]]
"""draws a mini-batch: inputs of the model (a tensor, a tuple of arguments or a dict of keywords) and targets"""
_ELEMENTS = 2**24
"""most elements of gradients that are in memory at once, if one sample has not more"""


def sample_noise(
    model: nn.Module,
    parameters: Sequence[Tensor],
    samples: Samples,
    loss: Callable[[Any, Any], Tensor],
    seed: int,
    wide: torch.dtype = torch.float64,
) -> tuple[Tensor, int]:
    """tr Ĉ₁ of each parameter from one mini-batch at the present parameters, without a trace in the training.

    Args:
        samples: draws a mini-batch of its own, samples along the first dimension of every tensor.
        loss: of the model's output and the targets, each of a batch of one; a scalar.
        seed: of random numbers inside, such as a dropout mask, which each sample has of its own.
        wide: type in which samples are summed; a gradient is squared in its own.

    Returns:
        (len(parameters),), 0 where the loss does not depend on it or it is frozen, and the number of samples.

    Raises:
        ValueError: if single samples have no gradient of their own in this model, there are fewer than two, or the
            optimizer moves parameters that are not the model's.
        RuntimeError: if torch.func cannot go through the model.
    """
    module = unwrap_model(model)
    _refuse_mixing(module)
    places = _find_places(module)
    moving = [parameter for parameter in parameters if parameter.requires_grad]
    if not moving or any(parameter not in places for parameter in moving):
        raise ValueError("single samples are measured where the optimizer moves parameters of the model, and no others")

    def loss_of_one(free: Sequence[Tensor], inputs: Any, targets: Any) -> Tensor:
        inputs, targets = tree_map(lambda part: part.unsqueeze(0), (inputs, targets))
        arguments = inputs if isinstance(inputs, tuple) else () if isinstance(inputs, dict) else (inputs,)
        keywords = inputs if isinstance(inputs, dict) else {}
        held = dict(zip(moving, free, strict=True))
        by_name = {name: held.get(p, p.detach()) for p, names in places.items() for name in names}
        # With tie_weights torch would not put back what two modules share.
        return loss(functional_call(module, by_name, arguments, keywords, tie_weights=False), targets).reshape(())

    gradients_of = vmap(grad(loss_of_one), in_dims=(None, 0, 0), randomness="different")
    with undisturbed(model, parameters), torch.enable_grad():
        torch.manual_seed(seed)
        batch = samples()
        count = len(tree_leaves(batch)[0])
        if count < 2:
            raise ValueError(f"a batch of {count} has no spread; two samples at least are needed")
        together = max(1, _ELEMENTS // sum(p.numel() for p in moving))
        squares = {p: torch.zeros((), dtype=wide, device=p.device) for p in moving}
        sums = {p: torch.zeros_like(p, dtype=wide) for p in moving}
        for start in range(0, count, together):
            part = tree_map(lambda tensor, at=start: tensor[at : at + together], batch)
            each = gradients_of([p.detach() for p in moving], *part)
            for parameter, gradients in zip(moving, each, strict=True):
                gradients = gradients.detach()
                # In their own type first: torch sums twenty times slower where it converts as it reads.
                norms = torch.linalg.vector_norm(gradients.flatten(1), dim=1)
                squares[parameter] += norms.to(wide).square().sum()
                sums[parameter] += gradients.sum(0).to(wide)
    nothing = torch.zeros((), dtype=wide, device=parameters[0].device)
    traces = {p: (squares[p] - torch.linalg.vector_norm(sums[p]) ** 2 / count) / (count - 1) for p in moving}
    return torch.stack([traces.get(parameter, nothing) for parameter in parameters]), count


def _find_places(module: nn.Module) -> dict[Tensor, list[str]]:
    """The names by which each parameter is reached: one for each module that holds it as its own."""
    places: dict[Tensor, list[str]] = {}
    for prefix, part in module.named_modules():
        for name, parameter in part.named_parameters(prefix, recurse=False, remove_duplicate=False):
            places.setdefault(parameter, []).append(name)
    return places


def _refuse_mixing(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and (part.training or not part.track_running_stats):
            raise ValueError(
                f"{name or 'the model'} is a {type(part).__name__} in training, in which samples have no gradient of "
                "their own; the probe measures the noise of whole batches"
            )
