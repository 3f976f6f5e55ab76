"""One seed noise for all arms of a task: many more degrees of freedom, at the price of an assumption.

Legend: a arms, n seeds that all of them have, y_as the score of arm a after seed s.

    MS = sum_as (y_as - y_a. - y_.s + y_..)^2 / ((a - 1)(n - 1)),     var(seed part of a difference) = 2 MS / n

With ten arms and three seeds this noise has 18 degrees of freedom instead of 2, and the width that decides among 45
pairs is an eighth. It is right where seeds move all arms by as much, and wrong for an arm that they move more: such an
arm is then told apart too often. Decisions made with it are therefore given beside the robust ones, never in their
place.

References: Fisher (1925), the error of an analysis of variance in blocks; Cochran (1941), the largest of several
variances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from subspace.statistics.crossed import Spread
from subspace.statistics.pairing import Pair, scores_by_seed
from subspace.statistics.scores import ScoreTable

__all__ = ["SharedNoise", "shared_noise"]

_FEWEST_ARMS = 3


@dataclass(frozen=True, slots=True)
class SharedNoise:
    """The seed noise that all arms are taken to have.

    Attributes:
        seed_part: Variance that seeds give the difference of two arms' scores, over all n seeds.
        degrees: (a - 1)(n - 1).
        loudest: The arm with the largest share of the squares.
        share: That share; 1 / a is even.
        p: Of so large a share if all arms had the same noise (at most; Bonferroni over arms).
    """

    seed_part: float
    degrees: int
    loudest: str
    share: float
    p: float

    def spread(self, pair: Pair) -> Spread:
        """Return the spread of a pair with this noise in the place of its own."""
        return replace(pair.spread, seed_part=self.seed_part, seed_degrees=self.degrees)


def shared_noise(table: ScoreTable, pairs: Sequence[Pair]) -> SharedNoise | None:
    """Return the noise shared by all arms; None with fewer than three arms or where some lack seeds or items."""
    present = table.seeds_present()
    full = bool(present.all()) and bool(table.items_present().all())
    num_arms, num_seeds = present.shape
    if not full or num_arms < _FEWEST_ARMS or num_seeds < 2 or not pairs:
        return None
    items = np.arange(table.num_items)
    scores = np.stack([scores_by_seed(table, arm, items) for arm in table.arms])
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + scores.mean()
    squares, degrees = (rest**2).sum(axis=1), (num_arms - 1) * (num_seeds - 1)
    total = float(squares.sum())
    if total <= 1e-24 * float((scores**2).sum()):
        return None
    share = float(squares.max()) / total
    own = degrees / num_arms
    p = num_arms * float(stats.beta.sf(share, own / 2.0, (degrees - own) / 2.0))
    return SharedNoise(
        seed_part=2.0 * total / degrees / num_seeds,
        degrees=degrees,
        loudest=table.arms[int(squares.argmax())],
        share=share,
        p=min(p, 1.0),
    )
