"""Whether a service answers as the model as written does, whoever else is in the run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import OpsError
from opslib.core.formatting import plural
from opslib.ops.sweep.arms import MAX_DIFF
from opslib.serving.load import Sample

QUEUE_FULL = '"code": "queue_full"'


class AnswerError(OpsError):
    """A service failed a request or answered otherwise than it must; the message is the reason."""


@dataclass(frozen=True)
class Reference:
    """What the first images of a load must be answered with: probabilities `[N, C]`. `arithmetic`
    is that of the service and decides how far a probability may move; `mismatch_max_pct` is how
    many answers may name another class."""

    probabilities: NDArray[np.float32]
    arithmetic: str
    mismatch_max_pct: float

    def check(self, samples: Sequence[Sample]) -> float:
        """Return the largest difference of a probability; answers to other images are not looked
        at. Raises AnswerError: an answer differs too much."""
        known = [one for one in samples if not one.failed and one.image < len(self.probabilities)]
        if not known:
            return 0.0
        expected = self.probabilities[[one.image for one in known]]
        named = np.array([one.class_ids[0] for one in known])
        if named.max() >= expected.shape[1]:
            raise AnswerError(f"it does not answer alike: there is no class {named.max()}")
        said = np.array([one.confidences[0] if one.confidences else np.nan for one in known])
        moved = float(np.abs(said - expected[np.arange(len(known)), named]).max())
        mismatch_pct = 100 * float((named != expected.argmax(axis=-1)).mean())
        if mismatch_pct > self.mismatch_max_pct:
            raise AnswerError(
                f"it does not answer alike: the class differs on {mismatch_pct:.1f} % of "
                f"{plural(len(known), 'answer')} (at most {self.mismatch_max_pct:g} %)"
            )
        allowed = MAX_DIFF[self.arithmetic]
        if not moved <= allowed:
            told = f"a probability moved by {moved:.2g}, {allowed:g} is allowed"
            raise AnswerError(f"it does not answer alike: {told}")
        return moved


def check_failures(samples: Sequence[Sample], *, overload: bool = False) -> None:
    """Refuse a load with requests that failed; with `overload` a full line is no failure. Raises
    AnswerError: one did."""
    failed = [one for one in samples if one.failed and not (overload and is_full(one))]
    if failed:
        first = failed[0]
        said = " ".join((first.error or "").split())
        raise AnswerError(
            f"{len(failed)} of {plural(len(samples), 'request')} failed, the first one with "
            f"{first.status or 'no answer'}: {said}"
        )


def is_full(sample: Sample) -> bool:
    """Whether a request was told to come back because the service's line is full."""
    return sample.status == 503 and QUEUE_FULL in (sample.error or "")
