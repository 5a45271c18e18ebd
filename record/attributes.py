"""What a recording says of itself from its first step on: model, optimizer, recorder and where it was made."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .buffer import HYPERPARAMETERS
from .layers import Layer, decay_kind, rule_of
from .settings import RecorderSettings


def describe_run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    layers: list[Layer],
    groups: list[str],
    settings: RecorderSettings,
    attributes: dict[str, Any],
) -> dict[str, Any]:
    """The attributes of a new recording; `attributes` are the user's own, which may not replace any but `run_id`."""
    return {
        "run_id": "",
        **attributes,
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.parameter.shape),
                "size": layer.size,
                "group": groups[layer.group],
                "optimizer_group": layer.optimizer_group,
            }
            for layer in layers
        ],
        "groups": groups,
        **reliability(model, layers, settings),
        "optimizer": {
            "class": type(optimizer).__name__,
            "rule": rule_of(optimizer),
            "weight_decay_kind": decay_kind(optimizer),
            "nesterov": any(group.get("nesterov", False) for group in optimizer.param_groups),
            "maximize": any(group.get("maximize", False) for group in optimizer.param_groups),
            # The built-in training has them in its settings.
            **({} if "settings" in attributes else _hyperparameters(optimizer)),
        },
        "recorder": settings.model_dump(),
        "parameter_dtype": str(layers[0].parameter.dtype).removeprefix("torch."),
        "provenance": _provenance(),
    }


def reliability(model: nn.Module, layers: list[Layer], settings: RecorderSettings) -> dict[str, Any]:
    """How far sketches and micro-batches are to be trusted for this model."""
    width = settings.sketch_size
    sizes = np.bincount([layer.group for layer in layers], weights=[layer.size for layer in layers])
    errors = [float(np.sqrt(2 / width)) if size > width else 0.0 for size in sizes] if width else None
    mixes = any(isinstance(part, _BatchNorm) for part in model.modules())
    return {"sketch_relative_error": errors, "chunk_statistics": mixes}


def _hyperparameters(optimizer: torch.optim.Optimizer) -> dict[str, float | list[float]]:
    """Those that the optimizer has, as they are at the first step; a list where its parameter groups differ."""
    found: dict[str, float | list[float]] = {}
    for name, key in ({"learning_rate": "lr"} | {name: name for name in HYPERPARAMETERS[1:]}).items():
        values = [group.get(key) for group in optimizer.param_groups]
        numbers = [float(value) for value in values if isinstance(value, int | float | Tensor)]
        if len(numbers) == len(values):
            found[name] = numbers if len(set(numbers)) > 1 else numbers[0]
    return found


def _provenance() -> dict[str, Any]:
    versions = {}
    for package in ("thermodl", "torch", "numpy", "zarr"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {"command": command, "python": platform.python_version(), "system": platform.system(), **versions}
