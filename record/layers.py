"""What the recorder must know of a model and its optimizer: layers, groups, and the optimizer's conventions."""

import functools
import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import RunError
from .format import ALL_GROUPS, OTHER_GROUPS

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
    `MAX_GROUPS` the rest is put together as `other`. A block `all`, as analyses call all layers together, is the group
    `model.all`. Frozen parameters that the optimizer does not hold are left out.

    Raises:
        RunError: if the optimizer holds no parameter that needs a gradient or none of the model's, or a parameter is
            of a kind that cannot be recorded.
    """
    names = {parameter: _plain_name(name) for name, parameter in unwrap_model(model).named_parameters()}
    moved = [
        (parameter, index)
        for index, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
        if parameter.requires_grad
    ]
    if not moved:
        raise RunError("the optimizer holds no parameter that needs a gradient: there is nothing to record")
    if not any(parameter in names for parameter, _ in moved):
        raise RunError("the optimizer moves none of the model's parameters: was it made for another model?")
    held = [(names.get(parameter, f"unnamed.{i}"), parameter, index) for i, (parameter, index) in enumerate(moved)]
    for name, parameter, _ in held:
        _check_parameter(name, parameter)
    devices = sorted({str(parameter.device) for parameter, _ in moved})
    if len(devices) > 1:
        raise RunError(f"the parameters lie on several devices ({', '.join(devices)}); they can be recorded on one")
    blocks = _name_groups([name for name, _, _ in held])
    groups = list(dict.fromkeys(blocks))
    layers, start, offsets = [], 0, dict.fromkeys(groups, 0)
    for (name, parameter, index), block in zip(held, blocks, strict=True):
        size = parameter.numel()
        layers.append(Layer(name, parameter, groups.index(block), index, start, offsets[block], size))
        start += size
        offsets[block] += size
    return layers, groups


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model inside torch.compile and the data-parallel wrappers, in whatever order they were put around it."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        else:
            return model


def _plain_name(name: str) -> str:
    """Without the traces of blocks that were compiled one by one."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _check_parameter(name: str, parameter: Tensor) -> None:
    if isinstance(parameter, nn.UninitializedParameter) or parameter.device.type == "meta":
        raise RunError(f"{name} has no values yet; run one batch through the model before recording")
    if hasattr(parameter, "device_mesh"):
        raise RunError(f"{name} is spread over several processes (DTensor), which cannot be recorded")
    if not parameter.is_floating_point() or parameter.layout != torch.strided:
        raise RunError(f"{name} is {parameter.dtype}, {parameter.layout}; real dense parameters can be recorded")


def _name_groups(names: list[str]) -> list[str]:
    parts = [name.split(".") for name in names]
    depth = 1
    while len({tuple(part[:depth]) for part in parts}) == 1 and any(len(part) > depth + 1 for part in parts):
        depth += 1
    blocks = [".".join(part[:depth]) for part in parts]
    blocks = [f"model.{block}" if block == ALL_GROUPS else block for block in blocks]
    kept = list(dict.fromkeys(blocks))
    if len(kept) > MAX_GROUPS:
        kept = kept[: MAX_GROUPS - 1]
    return [block if block in kept else OTHER_GROUPS for block in blocks]


def unwrap_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer whose hooks fire, inside what Lightning and accelerate put around it."""
    while type(optimizer).__module__.partition(".")[0] in ("lightning", "pytorch_lightning", "accelerate"):
        optimizer = optimizer.optimizer  # pyright: ignore[reportAttributeAccessIssue] - of all three
    return optimizer


@functools.cache
def _torch_rule(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer] | None:
    """The class of torch.optim whose step a class makes; None where it makes its own, whatever it inherits from."""
    for base in kind.__mro__:
        torchs = issubclass(base, torch.optim.Optimizer) and base.__module__.partition(".")[0] == "torch"
        if torchs and inspect.unwrap(base.step) is inspect.unwrap(kind.step):
            return base
    return None


def decay_kind(optimizer: torch.optim.Optimizer) -> str:
    """`coupled` if weight decay is part of the gradient, `decoupled` if not, `unknown` for foreign optimizers."""
    rule = _torch_rule(type(optimizer))
    if rule is None:
        return "unknown"
    if rule.__name__ not in _COUPLED or any(group.get("decoupled_weight_decay") for group in optimizer.param_groups):
        return "decoupled"
    return "coupled"


def rule_of(optimizer: torch.optim.Optimizer) -> str:
    """The name of the optimizer of torch whose step is made; empty for one of somebody's own."""
    rule = _torch_rule(type(optimizer))
    return rule.__name__ if rule else ""


def has_velocity(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the heavy-ball velocity is defined, which it is for SGD."""
    return _torch_rule(type(optimizer)) is torch.optim.SGD


def keeps_velocity(optimizer: torch.optim.Optimizer, group: dict) -> bool:
    """Whether the optimizer holds the heavy-ball velocity v_t of a parameter group, as `momentum_buffer`."""
    return has_velocity(optimizer) and bool(group["momentum"])
