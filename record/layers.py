"""What the recorder must know of a model and its optimizer: layers, groups, and the optimizer's conventions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .store import RunError

MAX_GROUPS = 16
# Classes of torch.optim that add weight_decay·θ to the gradient, unless their group says `decoupled_weight_decay`.
_COUPLED = ("SGD", "Adam", "RMSprop", "Adagrad", "Adadelta", "Adamax", "ASGD", "NAdam", "RAdam", "Rprop")


@dataclass(frozen=True)
class Layer:
    """One parameter tensor that the optimizer moves."""

    name: str
    parameter: Tensor
    group: int
    """index of the top-level block of the model that it belongs to"""
    optimizer_group: int
    start: int
    """place in the flat vector of all parameters"""
    offset: int
    """place in the flat vector of its group"""
    size: int
    """number of parameters"""

    @property
    def part(self) -> slice:
        """The layer's place in the flat vector of all parameters."""
        return slice(self.start, self.start + self.size)


def find_layers(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[Layer], list[str]]:
    """The tensors that the optimizer moves, in its order, and the names of their groups.

    Groups are the top-level blocks of the model; where there is only one it is opened, where there are more than
    `MAX_GROUPS` the rest is put together as `other`. Frozen parameters that the optimizer does not hold are left out.

    Raises:
        RunError: if the optimizer holds no parameter that needs a gradient.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    held = [
        (names.get(parameter, f"unnamed.{index}"), parameter, index)
        for index, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
        if parameter.requires_grad
    ]
    if not held:
        raise RunError("the optimizer holds no parameter that needs a gradient: there is nothing to record")
    blocks = _name_groups([name for name, _, _ in held])
    groups = list(dict.fromkeys(blocks))
    layers, start, offsets = [], 0, dict.fromkeys(groups, 0)
    for (name, parameter, index), block in zip(held, blocks, strict=True):
        size = parameter.numel()
        layers.append(Layer(name, parameter, groups.index(block), index, start, offsets[block], size))
        start += size
        offsets[block] += size
    return layers, groups


def _name_groups(names: list[str]) -> list[str]:
    # torch.compile and DataParallel put one block around the model.
    parts = [name.removeprefix("_orig_mod.").removeprefix("module.").split(".") for name in names]
    depth = 1
    while len({tuple(part[:depth]) for part in parts}) == 1 and any(len(part) > depth + 1 for part in parts):
        depth += 1
    blocks = [".".join(part[:depth]) for part in parts]
    kept = list(dict.fromkeys(blocks))
    if len(kept) > MAX_GROUPS:
        kept = kept[: MAX_GROUPS - 1]
    return [block if block in kept else "other" for block in blocks]


def decay_kind(optimizer: torch.optim.Optimizer) -> str:
    """`coupled` if weight decay is part of the gradient, `decoupled` if not, `unknown` for foreign optimizers."""
    if type(optimizer).__module__.partition(".")[0] != "torch":
        return "unknown"
    decoupled = type(optimizer).__name__ not in _COUPLED
    if decoupled or any(group.get("decoupled_weight_decay") for group in optimizer.param_groups):
        return "decoupled"
    return "coupled"


def keeps_velocity(optimizer: torch.optim.Optimizer, group: dict) -> bool:
    """Whether the optimizer holds the heavy-ball velocity v_t of a parameter group, as `momentum_buffer`."""
    return isinstance(optimizer, torch.optim.SGD) and bool(group["momentum"])


def momentum_of(group: dict) -> float:
    """The heavy-ball momentum μ of a parameter group; NaN for optimizers that have none of that kind."""
    return float(group["momentum"]) if "momentum" in group else float("nan")
