"""The pill kinds of the demo experiment: what each class looks like; and how large a demo is."""

from dataclasses import dataclass
from typing import Literal

Finish = Literal["chalk", "film", "gel"]
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "white": (242, 240, 234),
    "cream": (240, 231, 208),
    "ivory": (236, 224, 192),
    "yellow": (240, 205, 84),
    "gold": (240, 186, 66),
    "butter": (240, 222, 142),
    "peach": (240, 183, 140),
    "salmon": (228, 134, 112),
    "pink": (236, 160, 170),
    "red": (176, 36, 42),
    "orange": (232, 128, 44),
    "amber": (208, 128, 28),
    "brown": (146, 84, 56),
    "green": (134, 184, 128),
    "teal": (44, 132, 132),
    "forest": (38, 108, 74),
    "sky": (140, 184, 220),
    "blue": (78, 132, 196),
    "royal": (62, 104, 182),
    "lavender": (182, 158, 208),
}


@dataclass(frozen=True)
class PillKind:
    """One class of the demo: its name says the shape and the colour, or the two of a capsule.
    `imprint` has one entry per line, debossed on tablets and printed on capsules. `score` is the
    break line."""

    name: str
    imprint: tuple[str, ...] = ()
    finish: Finish = "chalk"
    score: bool = False

    @property
    def shape(self) -> str:
        """The outline, a key of `photo.SHAPES`."""
        return self.name.partition("-")[0]

    @property
    def colours(self) -> tuple[Colour, ...]:
        """sRGB; two for a capsule's cap and body."""
        return tuple(COLOURS[word] for word in self.name.split("-") if word in COLOURS)


KINDS: tuple[PillKind, ...] = (
    # Neighbours are alike on purpose: the imprint or a shade of colour tells them apart.
    PillKind("round-white-a12", ("A", "12"), score=True),
    PillKind("round-white-b36", ("B", "36"), score=True),
    PillKind("round-white-m5", ("M5",)),
    PillKind("round-white-n5", ("N5",)),
    PillKind("round-ivory-a12", ("A", "12"), score=True),
    PillKind("round-pink-rx", ("RX",), "film"),
    PillKind("round-salmon-rx", ("RX",), "film"),
    PillKind("round-yellow-80", ("80",), "film"),
    PillKind("round-gold-15", ("15",), "film"),
    PillKind("round-green-kt", ("K", "T"), score=True),
    PillKind("round-brown-25", ("25",), "film"),
    PillKind("oval-white-l5", ("L 5",), "film"),
    PillKind("oval-white-t8", ("T 8",), "film"),
    PillKind("oval-peach-20", ("20",)),
    PillKind("oval-sky-tv", ("T", "V"), score=True),
    PillKind("oblong-white-500", ("500",), "film"),
    PillKind("oblong-cream-875", ("875",), "film"),
    PillKind("oblong-butter-gx", ("G", "X"), "film", score=True),
    PillKind("diamond-blue-50", ("50",), "film"),
    PillKind("diamond-royal-100", ("100",), "film"),
    PillKind("hexagon-orange-h7", ("H7",)),
    PillKind("square-lavender-z2", ("Z2",)),
    PillKind("capsule-red-ivory", ("PX 30",), "gel"),
    PillKind("capsule-teal-white", ("DN 60",), "gel"),
    PillKind("capsule-forest-white", ("DN 30",), "gel"),
    PillKind("softgel-amber", (), "gel"),
)


@dataclass(frozen=True)
class DemoSize:
    """How large a demo is; the defaults are the embedded experiment. `previous_gap_pp` is how far
    below the newest model's top-1 the previous generation shall lie, in percentage points: the
    epoch that comes nearest is taken."""

    kinds: tuple[PillKind, ...] = KINDS
    train_per_class: int = 130
    val_per_class: int = 100
    img_size: int = 80
    epochs: int = 10
    previous_gap_pp: float = 2.0
    compare_images: int = 256
    golden: int = 8
    seed: int = 20240


def kind_names(kinds: tuple[PillKind, ...] = KINDS) -> tuple[str, ...]:
    """The class names in the order of the network's outputs (alphabetical, as folders list)."""
    return tuple(sorted(kind.name for kind in kinds))
