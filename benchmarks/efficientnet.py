"""An EfficientNetV2-S with random weights, as ONNX: the size of network that is served for real.

Architecture: Tan and Le 2021, table 4 (fused MBConv, MBConv with squeeze-and-excitation, SiLU).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

# (expansion, channels, blocks, stride of the first block, squeeze-and-excitation)
STAGES = (
    (1, 24, 2, 1, False),
    (4, 48, 4, 2, False),
    (4, 64, 4, 2, False),
    (4, 128, 6, 2, True),
    (6, 160, 9, 1, True),
    (6, 256, 15, 2, True),
)
STEM, HEAD, CLASSES, IMG_SIZE = 24, 1280, 1000, 224


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return a convolution with batch norm and SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class Squeeze(nn.Module):
    """Squeeze-and-excitation with a quarter of the block's input channels."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, reduced, 1),
            nn.SiLU(),
            nn.Conv2d(reduced, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scale each channel."""
        return image * self.gate(image)


class Block(nn.Module):
    """MBConv where it squeezes, fused MBConv where it does not."""

    def __init__(self, inputs: int, outputs: int, expand: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        wide = inputs * expand
        parts: list[nn.Module]
        if squeeze:
            parts = [conv(inputs, wide, 1), conv(wide, wide, 3, stride, wide)]
            parts.append(Squeeze(wide, inputs // 4))
        else:
            parts = [conv(inputs, wide if expand > 1 else outputs, 3, stride)]
        if expand > 1:
            parts += [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.body = nn.Sequential(*parts)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Apply the block."""
        answer = self.body(image)
        return image + answer if self.residual else answer


def make_network() -> nn.Module:
    """Return the network in eval mode, weights random; different images get different answers."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [conv(3, STEM, 3, 2)]
    inputs = STEM
    for expand, outputs, blocks, stride, squeeze in STAGES:
        for index in range(blocks):
            layers.append(Block(inputs, outputs, expand, 1 if index else stride, squeeze))
            inputs = outputs
    head = [conv(inputs, HEAD, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, *head, nn.Linear(HEAD, CLASSES))
    with torch.no_grad():  # unless its layers know their means, all that differs is lost in them
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
        network(torch.randn(4, 3, IMG_SIZE, IMG_SIZE))
        network[-1].weight *= 10
    return network.eval()


def export_network(path: Path) -> float:
    """Write the network to `path` and return its parameters in millions."""
    network = make_network()
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, IMG_SIZE, IMG_SIZE),),
        path,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        opset_version=18,
        dynamo=False,
    )
    return sum(one.numel() for one in network.parameters()) / 1e6
