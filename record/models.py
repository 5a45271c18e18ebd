"""Networks: two small ones, any of torchvision's, or one's own function."""

import math
from collections import OrderedDict

from torch import nn

from .datasets import call_function
from .settings import SettingsError


def cnn(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Two convolutions and two linear layers; 105,866 parameters on 28×28 grey images with 10 classes."""
    channels, height, width = shape
    if min(height, width) < 4:
        raise SettingsError(f"--model cnn needs images of 4×4 pixels at least; the data have {height}×{width}")
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            conv2=nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            linear1=nn.Sequential(nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), 64), nn.ReLU()),
            linear2=nn.Linear(64, classes),
        )
    )


def mlp(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Three linear layers, 1024 and 512 hidden units; 1,333,770 parameters on 28×28 grey images with 10 classes."""
    return nn.Sequential(
        OrderedDict(
            linear1=nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 1024), nn.ReLU()),
            linear2=nn.Sequential(nn.Linear(1024, 512), nn.ReLU()),
            linear3=nn.Linear(512, classes),
        )
    )


def make_model(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build a network for images of a shape (channels, height, width).

    Args:
        name: `cnn`, `mlp`, a classification model of torchvision (with the CIFAR stem, a 3×3 first convolution and
            no max-pool, where images are smaller than 64 pixels), or `package.module:function` taking
            (shape, classes).

    Raises:
        SettingsError: if the name is unknown or the model does not fit the images.
    """
    if name == "cnn":
        return cnn(shape, classes)
    if name == "mlp":
        return mlp(shape, classes)
    if ":" in name:
        model = call_function(name, "model", shape, classes)
        if not isinstance(model, nn.Module):
            raise SettingsError(f"--model {name!r} must return a torch.nn.Module; got {model!r:.200}")
        return model
    return _torchvision_model(name, shape, classes)


def _torchvision_model(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise SettingsError(
            f"--model {name!r} is unknown; expected cnn, mlp, a torchvision model such as resnet18, "
            "or package.module:function"
        )
    model = models.get_model(name, weights=None, num_classes=classes)
    channels, height, _ = shape
    if isinstance(model, models.ResNet):
        small = height < 64
        if small or channels != 3:
            width = model.conv1.out_channels
            model.conv1 = (
                nn.Conv2d(channels, width, 3, padding=1, bias=False)
                if small
                else nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
            )
        if small:
            model.maxpool = nn.Identity()  # type: ignore[assignment]
    elif channels != 3:
        raise SettingsError(f"--model {name} expects images with 3 channels, the data have {channels}")
    return model
