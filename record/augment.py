"""Random changes to a batch of images, drawn from a generator of their own, so that the order of the data stays."""

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Images (B, channels, height, width) in the same shape and type, each changed independently of the others.

    `flip` mirrors left and right with probability ½. `crop-flip` also moves the image by up to an eighth of its
    height and width (4 of 32 pixels), in whole pixels, uniformly; the border is filled with 0 (black).

    Args:
        kind: `none`, `flip` or `crop-flip`.
        generator: on the CPU, so that a seed means the same on every device.
    """
    if kind == "none":
        return images
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)
    if kind == "flip":
        return images
    height, width = images.shape[-2:]
    down, right = height // 8, width // 8
    tops = torch.randint(2 * down + 1, (len(images),), generator=generator).to(images.device)
    lefts = torch.randint(2 * right + 1, (len(images),), generator=generator).to(images.device)
    windows = F.pad(images, (right, right, down, down)).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, tops, lefts]
