"""ARC-Challenge: the questions of ARC that retrieval and word co-occurrence get wrong.

References:
    Clark et al., 2018, Think you have Solved Question Answering? Try ARC, arXiv:1803.05457.
"""

from __future__ import annotations

from subspace.evaluation.tasks.arc_easy import LAYOUTS, question
from subspace.evaluation.tasks.base import Source, Task

__all__ = ["TASK"]

TASK = Task(
    name="arc_challenge",
    version=1,
    kind="multiple_choice",
    source=Source("allenai/ai2_arc", "ARC-Challenge", "test", "train"),
    layouts=LAYOUTS,
    metrics=("acc_norm", "acc", "acc_bytes"),
    question=question,
    choices=lambda doc: doc["choices"],
    gold=lambda doc: int(doc["gold"]),
)
