"""torchvision's ResNets, for images of any size."""

from __future__ import annotations

from torch import nn

SMALL_IMAGE = 64  # pixels; the stem of an ImageNet ResNet would discard most of an image up to this size


def torchvision_resnet(name: str, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """torchvision's ResNet; for images up to SMALL_IMAGE pixels its stem is one 3x3 convolution, without pooling."""
    from torchvision import models

    channels, height, width = image_shape
    model: nn.Module = models.get_model(name, num_classes=num_classes)
    if max(height, width) <= SMALL_IMAGE:
        model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    elif channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return model
