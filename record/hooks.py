"""The moment of measuring: the optimizer holds the complete gradient and has not moved yet.

That is its step pre-hook; where `step` is given a closure (Lightning always does), the gradient is made inside the
step, and the moment is the end of the closure's first call.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class StepHooks:
    """Call `before` at that moment of every step, and `after` when the step has been made."""

    def __init__(self, optimizer: torch.optim.Optimizer, before: Callable[[], None], after: Callable[[], None]):
        self._before = before
        self._handles = [
            optimizer.register_step_pre_hook(self._enter),
            optimizer.register_step_post_hook(lambda *_: after()),
        ]

    def remove(self) -> None:
        """Let go of the optimizer."""
        for handle in self._handles:
            handle.remove()

    def _enter(
        self, _: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # torch hands over the optimizer as the first of the arguments.
        closure = kwargs["closure"] if "closure" in kwargs else args[1] if len(args) > 1 else None
        if not callable(closure):
            self._before()
            return None
        closure = self._measure_after(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure}
        return (*args[:1], closure, *args[2:]), kwargs

    def _measure_after(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        first = True

        def measured() -> Any:
            nonlocal first
            result = closure()
            if first:
                first = False
                self._before()
            return result

        return measured


def loss_scale(optimizer: torch.optim.Optimizer) -> tuple[Tensor | None, bool]:
    """By what the gradients are still multiplied at a step, None for nothing, and whether the step will do nothing.

    A GradScaler unscales the gradients and leaves steps out itself, unseen by the hooks; only fused optimizers do
    both inside their step, from two attributes that the scaler sets for the time of it. To look at the second waits
    for the device, as the scaler does with other optimizers.
    """
    found = getattr(optimizer, "found_inf", None)
    return getattr(optimizer, "grad_scale", None), found is not None and bool(found)


def has_overflow(parameters: Iterable[Tensor]) -> bool:
    """Whether a gradient is there that a GradScaler would not have let through; waits for the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return any(not bool(torch.isfinite(gradient).all()) for gradient in gradients)
