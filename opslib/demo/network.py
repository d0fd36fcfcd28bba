"""The demo's classifier: a small residual CNN of plain convolutions."""

import torch
from torch import Tensor, nn


def _conv(channels_in: int, channels_out: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    )


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut; the picture's edges are halved."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = _conv(channels_in, channels_out, stride=2)
        self.second = _conv(channels_out, channels_out)
        self.shortcut = _conv(channels_in, channels_out, stride=2, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of half the size."""
        inner = torch.relu(self.first(x))
        return torch.relu(self.second(inner) + self.shortcut(x))


class PillNet(nn.Module):
    """Images `[N, 3, H, W]` to logits `[N, num_classes]`; no softmax inside."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = _conv(3, 20, stride=2)
        self.stages = nn.Sequential(Block(20, 40), Block(40, 80), Block(80, 120))
        self.head = nn.Linear(120, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch."""
        features = self.stages(torch.relu(self.stem(x)))
        return self.head(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def build_network(num_classes: int) -> nn.Module:
    """The network with fresh weights, for `num_classes` classes."""
    return PillNet(num_classes)
