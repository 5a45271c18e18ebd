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
        name: `cnn`, `mlp`, a classification model of torchvision, or `package.module:function` taking
            (shape, classes). Where images are smaller than 64 pixels, torchvision's ResNet, ResNeXt, Wide ResNet,
            DenseNet, ShuffleNet, RegNet, MobileNet, EfficientNet and MNASNet get the CIFAR stem: a 3×3 first
            convolution with stride 1 and no max-pool. Others stay as they are, made for 224 pixels and more: AlexNet,
            Inception, and below 32 pixels VGG and ConvNeXt halve a small image to nothing; ViT and MaxViT expect
            their size; SqueezeNet, GoogLeNet and Swin run, on few pixels. Any of them gets a first convolution for
            the number of channels.

    Raises:
        SettingsError: if the name is unknown, or the function does not return a model.
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


def advice(model: nn.Module, shape: tuple[int, int, int]) -> str:
    """A way out where one of torchvision's models cannot take small images; empty for others."""
    if not type(model).__module__.startswith("torchvision.") or _stem(model) or min(shape[1:]) >= 224:
        return ""
    return (
        f"; torchvision's {type(model).__name__} is made for large images (224 pixels) and not adapted to small ones: "
        "try --image-size 224, or a model with the CIFAR stem, such as resnet18"
    )


def _stem(model: nn.Module) -> tuple[str, str | None] | None:
    """The first convolution and the max-pool after it, of families that are adapted to small images."""
    from torchvision import models

    stems: tuple[tuple[type[nn.Module], str, str | None], ...] = (
        (models.ResNet, "conv1", "maxpool"),
        (models.DenseNet, "features.conv0", "features.pool0"),
        (models.ShuffleNetV2, "conv1.0", "maxpool"),
        (models.RegNet, "stem.0", None),
        (models.MobileNetV2, "features.0.0", None),
        (models.MobileNetV3, "features.0.0", None),
        (models.EfficientNet, "features.0.0", None),
        (models.MNASNet, "layers.0", None),
    )
    return next(((convolution, pool) for kind, convolution, pool in stems if isinstance(model, kind)), None)


# Auxiliary heads would return a tuple; their own initialization is the one that torchvision recommends.
_NO_HEADS = {"aux_logits": False, "init_weights": True}
_OPTIONS = {"googlenet": _NO_HEADS, "inception_v3": _NO_HEADS}


def _torchvision_model(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise SettingsError(
            f"--model {name!r} is unknown; expected cnn, mlp, a torchvision model such as resnet18, "
            "or package.module:function"
        )
    model = models.get_model(name, weights=None, num_classes=classes, **_OPTIONS.get(name, {}))
    channels, small = shape[0], min(shape[1:]) < 64
    place, pool = _stem(model) or (_first_convolution(model), None)
    adapt = small and _stem(model) is not None
    if adapt or channels != 3:
        old = model.get_submodule(place)
        assert isinstance(old, nn.Conv2d)
        _replace(model, place, _convolution_like(old, channels, adapt))
    if adapt and pool:
        _replace(model, pool, nn.Identity())
    return model


def _convolution_like(old: nn.Conv2d, channels: int, adapt: bool) -> nn.Conv2d:
    bias = old.bias is not None
    if adapt:
        return nn.Conv2d(channels, old.out_channels, 3, padding=1, bias=bias)
    # The padding of a convolution may be a word; it is none in torchvision.
    return nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=bias)  # type: ignore[arg-type]


def _first_convolution(model: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))


def _replace(model: nn.Module, place: str, module: nn.Module) -> None:
    parent, _, name = place.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
