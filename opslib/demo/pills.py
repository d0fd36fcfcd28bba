"""The pill kinds of the demo experiment: what each class looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = Literal["round", "oval", "oblong", "capsule", "softgel", "diamond", "hexagon", "square"]
Finish = Literal["chalk", "film", "gel"]
Colour = tuple[int, int, int]

WHITE: Colour = (242, 240, 234)
CREAM: Colour = (240, 231, 208)
IVORY: Colour = (236, 224, 192)
YELLOW: Colour = (240, 205, 84)
GOLD: Colour = (240, 186, 66)
BUTTER: Colour = (240, 222, 142)
PEACH: Colour = (240, 183, 140)
SALMON: Colour = (228, 134, 112)
PINK: Colour = (236, 160, 170)
RED: Colour = (176, 36, 42)
ORANGE: Colour = (232, 128, 44)
AMBER: Colour = (208, 128, 28)
BROWN: Colour = (146, 84, 56)
GREEN: Colour = (134, 184, 128)
TEAL: Colour = (44, 132, 132)
FOREST: Colour = (38, 108, 74)
SKY: Colour = (140, 184, 220)
BLUE: Colour = (78, 132, 196)
ROYAL: Colour = (62, 104, 182)
LAVENDER: Colour = (182, 158, 208)


@dataclass(frozen=True)
class PillKind:
    """One class of the demo: a tablet or capsule as its maker would describe it.

    `colours` are sRGB; a two-tone capsule has two (cap, body). `imprint` has one entry per
    line, debossed on tablets and printed on capsules. `score` is the break line.
    """

    name: str
    shape: Shape
    colours: tuple[Colour, ...]
    imprint: tuple[str, ...]
    score: bool = False
    finish: Finish = "chalk"
    speckled: bool = False


KINDS: tuple[PillKind, ...] = (
    # Neighbours are alike on purpose: the imprint or a shade of colour tells them apart.
    PillKind("round-white-a12", "round", (WHITE,), ("A", "12"), score=True),
    PillKind("round-white-b36", "round", (WHITE,), ("B", "36"), score=True),
    PillKind("round-white-m5", "round", (WHITE,), ("M5",)),
    PillKind("round-white-n5", "round", (WHITE,), ("N5",)),
    PillKind("round-ivory-a12", "round", (IVORY,), ("A", "12"), score=True),
    PillKind("round-pink-rx", "round", (PINK,), ("RX",), finish="film"),
    PillKind("round-salmon-rx", "round", (SALMON,), ("RX",), finish="film"),
    PillKind("round-yellow-80", "round", (YELLOW,), ("80",), finish="film"),
    PillKind("round-gold-15", "round", (GOLD,), ("15",), finish="film"),
    PillKind("round-green-kt", "round", (GREEN,), ("K", "T"), score=True, speckled=True),
    PillKind("round-brown-25", "round", (BROWN,), ("25",), finish="film"),
    PillKind("oval-white-l5", "oval", (WHITE,), ("L 5",), finish="film"),
    PillKind("oval-white-t8", "oval", (WHITE,), ("T 8",), finish="film"),
    PillKind("oval-peach-20", "oval", (PEACH,), ("20",)),
    PillKind("oval-sky-tv", "oval", (SKY,), ("T", "V"), score=True),
    PillKind("oblong-white-500", "oblong", (WHITE,), ("500",), finish="film"),
    PillKind("oblong-cream-875", "oblong", (CREAM,), ("875",), finish="film"),
    PillKind("oblong-butter-gx", "oblong", (BUTTER,), ("G", "X"), score=True, finish="film"),
    PillKind("diamond-blue-50", "diamond", (BLUE,), ("50",), finish="film"),
    PillKind("diamond-royal-100", "diamond", (ROYAL,), ("100",), finish="film"),
    PillKind("hexagon-orange-h7", "hexagon", (ORANGE,), ("H7",)),
    PillKind("square-lavender-z2", "square", (LAVENDER,), ("Z2",)),
    PillKind("capsule-red-ivory", "capsule", (RED, IVORY), ("PX 30",), finish="gel"),
    PillKind("capsule-teal-white", "capsule", (TEAL, WHITE), ("DN 60",), finish="gel"),
    PillKind("capsule-forest-white", "capsule", (FOREST, WHITE), ("DN 30",), finish="gel"),
    PillKind("softgel-amber", "softgel", (AMBER,), (), finish="gel"),
)


def kind_names(kinds: tuple[PillKind, ...] = KINDS) -> tuple[str, ...]:
    """The class names in the order of the network's outputs (alphabetical, as folders list)."""
    return tuple(sorted(kind.name for kind in kinds))
