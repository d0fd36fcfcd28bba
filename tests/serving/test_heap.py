"""Memory that a freed model leaves in the heap goes back to the system."""

from __future__ import annotations

import ctypes
import os

from opslib.ops.drill.rehearsal import read_rss_bytes
from opslib.serving.connections import give_back_memory

PIECES, PIECE_BYTES = 1500, 100_000


def test_freed_pieces_between_live_ones_are_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    pieces = [libc.malloc(PIECE_BYTES) for _ in range(PIECES)]
    for piece in pieces:
        ctypes.memset(piece, 1, PIECE_BYTES)
    for piece in pieces[:-1]:  # the last keeps the heap from shrinking by itself
        libc.free(piece)
    kept = read_rss_bytes(os.getpid())
    give_back_memory()
    left = read_rss_bytes(os.getpid())
    libc.free(pieces[-1])
    assert kept is not None
    assert left is not None
    assert kept - left > PIECES * PIECE_BYTES / 2
