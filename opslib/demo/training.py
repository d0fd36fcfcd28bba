"""Training the demo's network: seeded, on the CPU, about 80 seconds on two cores."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from opslib.core.host import usable_cpus
from opslib.demo.network import build_network
from opslib.demo.pills import DemoSize
from opslib.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, preprocess

BATCH_SIZE = 16
PEAK_RATE = 3e-3
WEIGHT_DECAY = 0.05
_TURN_RAD, _ZOOM, _SHIFT, _GAIN = 0.10, 0.08, 0.08, 0.15
_CHUNK = 128
SPLITS = ("train", "val")


class ImageTensors(NamedTuple):
    """Images of one split as bytes `[N, 3, H, W]` and their class numbers `[N]`."""

    pixels: Tensor
    labels: Tensor


class Generation(NamedTuple):
    """A network after an epoch, and what it is worth on the validation images: ratios are 0..1,
    loss is cross-entropy."""

    epoch: int
    weights: dict[str, Tensor]
    top1: float
    loss: float
    per_class: tuple[float, ...]


class Step(NamedTuple):
    """Where training stands; `top1` on the validation images is set when an epoch ends."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float | None = None


OnStep = Callable[[Step], None]


def list_images(data_root: Path, split: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """The image files of a split in order, each with its class number."""
    return [
        (str(path), number)
        for number, name in enumerate(names)
        for path in sorted((data_root / split / name).glob("*.jpg"))
    ]


def load_images(data_root: Path, split: str, names: Sequence[str], img_size: int) -> ImageTensors:
    """Decode a split once, by the serving preprocessing, and keep it as bytes."""
    files = list_images(data_root, split, names)
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    with ThreadPoolExecutor(usable_cpus()) as pool:
        pixels = np.concatenate(list(pool.map(lambda part: _as_bytes(part, img_size), chunks)))
    return ImageTensors(torch.from_numpy(pixels), torch.tensor([number for _, number in files]))


def _as_bytes(files: list[tuple[str, int]], img_size: int) -> NDArray[np.uint8]:
    """Preprocessed images with the normalization undone: exactly the resized image's bytes."""
    batch = preprocess([path for path, _ in files], img_size)
    plain = (batch * IMAGENET_STD[:, None, None] + IMAGENET_MEAN[:, None, None]) * 255.0
    return np.asarray(np.rint(plain).clip(0, 255), np.uint8)


def normalize(pixels: Tensor) -> Tensor:
    """Image bytes `[N, 3, H, W]` as the network's input, equal to `preprocess`."""
    scale = torch.from_numpy(1.0 / (255.0 * IMAGENET_STD))[:, None, None]
    shift = torch.from_numpy(IMAGENET_MEAN / IMAGENET_STD)[:, None, None]
    return pixels * scale - shift


def train(
    data_root: Path, names: Sequence[str], size: DemoSize, on_step: OnStep = lambda _: None
) -> tuple[Generation, Generation]:
    """Train a fresh network on `data_root`; return its newest generation and the previous one. The
    same images, size and number of threads give the same weights."""
    seen, held = (load_images(data_root, split, names, size.img_size) for split in SPLITS)
    torch.set_num_threads(usable_cpus())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(size.seed)
        history = list(_run_epochs(seen, held, len(names), size, on_step))
    return history[-1], _choose_previous(history, size.previous_gap_pp / 100.0)


def _run_epochs(
    seen: ImageTensors, held: ImageTensors, num_classes: int, size: DemoSize, on_step: OnStep
) -> Iterator[Generation]:
    net = build_network(num_classes)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    count = len(seen.labels)
    steps = max(1, count // BATCH_SIZE)
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=max(8, steps * size.epochs), pct_start=0.25
    )
    for epoch in range(1, size.epochs + 1):
        order, loss = torch.randperm(count), 0.0
        for step in range(steps):
            chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            inputs = _augment(normalize(seen.pixels[chosen]))
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            error = functional.cross_entropy(net(inputs), seen.labels[chosen])
            error.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rates.step()
            loss += float(error.detach())
            on_step(Step(epoch, size.epochs, step + 1, steps, loss / (step + 1)))
        generation = _evaluate(net, held, epoch)
        on_step(Step(epoch, size.epochs, steps, steps, loss / steps, generation.top1))
        yield generation


def _augment(images: Tensor) -> Tensor:
    """Images turned, zoomed, shifted and brightened a little."""
    count = len(images)
    turn = (torch.rand(count) * 2 - 1) * _TURN_RAD
    zoom = 1 + (torch.rand(count) * 2 - 1) * _ZOOM
    c, s = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    x, y = (torch.rand(2, count) * 2 - 1) * _SHIFT
    matrix = torch.stack([torch.stack([c, -s, x], 1), torch.stack([s, c, y], 1)], 1)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved * (1 + (torch.rand(count, 1, 1, 1) * 2 - 1) * _GAIN)


def _evaluate(net: nn.Module, held: ImageTensors, epoch: int) -> Generation:
    """A copy of a network and what it is worth on `held`; it is left in training mode."""
    net.eval()
    with torch.inference_mode():
        logits = torch.cat([net(normalize(part)) for part in torch.split(held.pixels, _CHUNK)])
    net.train()
    hit = (logits.argmax(1) == held.labels).float()
    return Generation(
        epoch,
        {name: value.clone().contiguous() for name, value in net.state_dict().items()},
        top1=float(hit.mean()),
        loss=float(functional.cross_entropy(logits, held.labels)),
        per_class=tuple(float(hit[held.labels == n].mean()) for n in range(logits.shape[1])),
    )


def _choose_previous(history: list[Generation], gap: float) -> Generation:
    """The earlier generation whose top-1 lies nearest to `gap` below the last one's."""
    wanted = history[-1].top1 - gap
    earlier = history[:-1] or history
    return min(earlier, key=lambda one: (abs(one.top1 - wanted), -one.epoch))
