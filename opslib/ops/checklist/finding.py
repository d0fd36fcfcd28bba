"""One thing that the doctor looked at."""

from dataclasses import dataclass
from typing import Literal

from opslib.core.language import mark, tr

FindingState = Literal["ok", "note", "problem"]
STATE_WORDS: dict[FindingState, str] = {
    "ok": mark("ok"),
    "note": mark("note"),
    "problem": mark("problem"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: where, how it is, what was seen, and what to do about it."""

    area: str
    state: FindingState
    seen: str
    next_step: str | None = None

    @property
    def state_word(self) -> str:
        """The state as people are shown it."""
        return tr(STATE_WORDS[self.state])
