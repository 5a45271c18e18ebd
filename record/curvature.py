"""The curvature along the velocity, vᵀHv, by one Hessian-vector product on a mini-batch of the probe.

H = ∇²L_b is the Hessian of that batch's loss at the present θ. With the gradient ∇L_b kept differentiable,

    Hv = ∇(∇L_b · v),

where the second ∇ takes about two backward passes, more where a kernel has no fast second derivative. As the batch is
independent of those that made v, vᵀHv is unbiased for that of the mean loss, which FDR2 (Yaida 2019, arXiv 1810.00004)
holds against ‖∇L‖².
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .probe import draw_loss, undisturbed


def hessian_product(
    model: nn.Module, parameters: Sequence[Tensor], loss: Callable[[], Tensor], vectors: Sequence[Tensor], seed: int
) -> list[Tensor | None]:
    """Hv of a mini-batch loss at the present parameters, which leaves no trace in the training (`undisturbed`).

    Args:
        loss: a function that draws a batch of its own and returns the loss, a scalar tensor.
        vectors: v of each parameter, of any shape with as many elements.

    Returns:
        Hv of each parameter, in its shape; None where Hv is zero because the gradient does not depend on it, and for
        frozen parameters, whose v counts as zero.

    Raises:
        ValueError: as `probe_gradient`, or if a kernel is marked as differentiable once, or no gradient depends on the
            parameters: a kernel that hides how they enter cannot be told from a loss without curvature.
        RuntimeError: if a kernel has no second derivative.
    """
    # Of the kernels for attention only the plain formula can be differentiated twice.
    with undisturbed(model, parameters), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        torch.manual_seed(seed)
        # A kernel that is `once_differentiable` marks what it gives only where a gradient comes in that needs one.
        value = draw_loss(loss) * torch.ones((), device=parameters[0].device, requires_grad=True)
        free = [(p, v) for p, v in zip(parameters, vectors, strict=True) if p.requires_grad]
        moving = [parameter for parameter, _ in free]
        gradients = torch.autograd.grad(value, moving, create_graph=True, allow_unused=True)
        pairs = [(g, v) for g, (_, v) in zip(gradients, free, strict=True) if g is not None and g.requires_grad]
        sources = [gradient for gradient, _ in pairs]
        if _is_cut(sources):
            raise ValueError("a kernel in the probe's loss can be differentiated once only")
        along = [vector.reshape(gradient.shape).to(gradient.dtype) for gradient, vector in pairs]
        products = torch.autograd.grad(sources, moving, along, allow_unused=True)
        if all(product is None for product in products):
            raise ValueError("the gradient of the probe's loss does not depend on the parameters")
        each = iter(products)
        return [next(each) if parameter.requires_grad else None for parameter in parameters]


def _is_cut(gradients: Sequence[Tensor]) -> bool:
    """Whether a kernel on the way is marked as differentiable once, which autograd.grad would pass over in silence."""
    waiting, seen = [gradient.grad_fn for gradient in gradients], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            if node.name() == "torch::autograd::Error":
                return True
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return False
