"""The CIFAR-10 networks of the 2018 scripts: same outputs, same names in the ``state_dict``.

The checkpoints that were published with the paper (Li et al., below) load with ``strict=True``. A
network is a Sequential with the part names of the scripts; only the two kinds of block need their
own class, because they are not sequential. No operation works in place, so that every network can
be differentiated twice and used with ``torch.func``.

Three details differ from the usual architectures: the ImageNet ones have a 3x3 stem without
pooling, for images of 32x32; a bottleneck block without its shortcut does not end in a ReLU; the
wide networks have a wider stem, too.

Source: Li, Xu, Taylor, Studer, Goldstein, 2018, arXiv 1712.09913, section 5; He et al., 2015,
arXiv 1512.03385, sections 4.1 and 4.2; Huang et al., 2016, arXiv 1608.06993, table 1; Simonyan and
Zisserman, 2014, arXiv 1409.1556.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

_CLASSES = 10
_IMAGENET = {  # depth: blocks per stage (He et al., table 1)
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_VGG9 = (64, 64, None, 128, 128, None, 256, 256, 256, None)  # channels; None halves the image
_DENSENET121 = (6, 12, 24, 16)  # blocks per stage (Huang et al., table 1)
_GROWTH = 32  # channels that each block of the DenseNet adds


def build_tiny() -> nn.Module:
    """Return the small network of the reference files, with 1,342 weights and biases.

    Returns:
        A module from images [b, 3, 32, 32] to logits [b, 10].
    """
    return _chain(
        conv1=_conv(3, 6, 3, bias=True),
        bn1=nn.BatchNorm2d(6),
        relu1=nn.ReLU(),
        pool1=nn.AvgPool2d(4),
        conv2=_conv(6, 12, 3),
        bn2=nn.BatchNorm2d(12),
        relu2=nn.ReLU(),
        pool2=nn.AvgPool2d(4),
        flat=nn.Flatten(),
        fc=nn.Linear(48, _CLASSES),
    )


def _build_vgg9() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG9:
        if width is None:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        else:
            layers += [_conv(channels, width, 3, bias=True), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return _chain(
        features=nn.Sequential(*layers),
        flat=nn.Flatten(),
        fc=nn.Sequential(
            nn.Linear(channels * 4 * 4, channels), nn.BatchNorm1d(channels), nn.ReLU()
        ),
        classifier=nn.Linear(channels, _CLASSES),
    )


def _build_densenet121() -> nn.Module:
    channels = 2 * _GROWTH
    parts: dict[str, nn.Module] = {"conv1": _conv(3, channels, 3)}
    for stage, count in enumerate(_DENSENET121, start=1):
        if stage > 1:
            parts[f"trans{stage - 1}"] = _build_transition(channels)
            channels //= 2
        widths = range(channels, channels + count * _GROWTH, _GROWTH)
        parts[f"dense{stage}"] = nn.Sequential(*map(_DenseBlock, widths))
        channels += count * _GROWTH
    return _chain(
        **parts,
        bn=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
        pool=nn.AvgPool2d(4),
        flat=nn.Flatten(),
        linear=nn.Linear(channels, _CLASSES),
    )


def _build_transition(channels: int) -> nn.Module:
    return _chain(
        bn=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
        conv=_conv(channels, channels // 2, 1),
        pool=nn.AvgPool2d(2),
    )


def _build_imagenet(depth: int, *, shortcut: bool = True) -> nn.Module:
    return build_residual(_IMAGENET[depth], 64, bottleneck=depth >= 50, shortcut=shortcut)


def _build_cifar(depth: int, *, widen: int = 1, shortcut: bool = True) -> nn.Module:
    return build_residual(((depth - 2) // 6,) * 3, 16 * widen, shortcut=shortcut)


def build_residual(
    counts: Sequence[int],
    width: int,
    *,
    bottleneck: bool = False,
    shortcut: bool = True,
    inputs: int = 3,
    image: int = 32,
) -> nn.Module:
    """Return a residual network, or the same network without its shortcuts.

    Args:
        counts: The number of blocks of each stage. Every stage but the first doubles the width
            and halves the image.
        width: The number of channels of the stem and of the first stage.
        bottleneck: Whether blocks have 1x1, 3x3 and 1x1 convolutions and four times as many
            output channels; otherwise they have two 3x3 convolutions.
        shortcut: Whether blocks have shortcuts.
        inputs: The number of channels of an image.
        image: The height and width of an image.

    Returns:
        A module from images [b, inputs, image, image] to logits [b, 10].
    """
    parts: dict[str, nn.Module] = {
        "conv1": _conv(inputs, width, 3),
        "bn1": nn.BatchNorm2d(width),
        "relu": nn.ReLU(),
    }
    channels = width
    for stage, count in enumerate(counts):
        blocks = []
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(
                _Block(channels, width << stage, stride, bottleneck=bottleneck, shortcut=shortcut)
            )
            channels = blocks[-1].channels
        parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    return _chain(
        **parts,
        pool=nn.AvgPool2d(image >> (len(counts) - 1)),
        flat=nn.Flatten(),
        linear=nn.Linear(channels, _CLASSES),
    )


class _Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3, 1x1, with or without a shortcut."""

    def __init__(
        self, inputs: int, width: int, stride: int, *, bottleneck: bool, shortcut: bool
    ) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        self.channels = 4 * width if bottleneck else width
        if bottleneck:
            self.conv1 = _conv(inputs, width, 1)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = _conv(width, width, 3, stride)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = _conv(width, self.channels, 1)
            self.bn3 = nn.BatchNorm2d(self.channels)
        else:
            self.conv1 = _conv(inputs, width, 3, stride)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = _conv(width, width, 3)
            self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, self.channels, stride) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, channels, h / stride, w / stride] for x of [b, inputs, h, w]."""
        out: Tensor = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            out = self.bn3(self.conv3(relu(out)))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        elif self.bottleneck:
            return out  # as in the 2018 scripts: only this kind has no ReLU at its end
        return relu(out)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class _DenseBlock(nn.Module):
    """A bottleneck that puts its new channels in front of its input channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, 4 * _GROWTH, 1)
        self.bn2 = nn.BatchNorm2d(4 * _GROWTH)
        self.conv2 = _conv(4 * _GROWTH, _GROWTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, growth + inputs, h, w] for x of [b, inputs, h, w]."""
        out = self.conv1(relu(self.bn1(x)))
        out = self.conv2(relu(self.bn2(out)))
        return torch.cat([out, x], dim=1)


def _conv(
    inputs: int, outputs: int, size: int, stride: int = 1, *, bias: bool = False
) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=bias)


def _chain(**parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg9": _build_vgg9,
    "densenet121": _build_densenet121,
    "resnet18": partial(_build_imagenet, 18),
    "resnet18_noshort": partial(_build_imagenet, 18, shortcut=False),
    "resnet34": partial(_build_imagenet, 34),
    "resnet34_noshort": partial(_build_imagenet, 34, shortcut=False),
    "resnet50": partial(_build_imagenet, 50),
    "resnet50_noshort": partial(_build_imagenet, 50, shortcut=False),
    "resnet101": partial(_build_imagenet, 101),
    "resnet101_noshort": partial(_build_imagenet, 101, shortcut=False),
    "resnet152": partial(_build_imagenet, 152),
    "resnet152_noshort": partial(_build_imagenet, 152, shortcut=False),
    "resnet20": partial(_build_cifar, 20),
    "resnet20_noshort": partial(_build_cifar, 20, shortcut=False),
    "resnet32_noshort": partial(_build_cifar, 32, shortcut=False),
    "resnet44_noshort": partial(_build_cifar, 44, shortcut=False),
    "resnet50_16_noshort": partial(_build_cifar, 50, shortcut=False),
    "resnet56": partial(_build_cifar, 56),
    "resnet56_noshort": partial(_build_cifar, 56, shortcut=False),
    "resnet110": partial(_build_cifar, 110),
    "resnet110_noshort": partial(_build_cifar, 110, shortcut=False),
    "wrn56_2": partial(_build_cifar, 56, widen=2),
    "wrn56_2_noshort": partial(_build_cifar, 56, widen=2, shortcut=False),
    "wrn56_4": partial(_build_cifar, 56, widen=4),
    "wrn56_4_noshort": partial(_build_cifar, 56, widen=4, shortcut=False),
    "wrn56_8": partial(_build_cifar, 56, widen=8),
    "wrn56_8_noshort": partial(_build_cifar, 56, widen=8, shortcut=False),
    "wrn110_2_noshort": partial(_build_cifar, 110, widen=2, shortcut=False),
    "wrn110_4_noshort": partial(_build_cifar, 110, widen=4, shortcut=False),
}
