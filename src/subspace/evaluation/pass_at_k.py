"""pass@k from n >= k samples: the chance that one of k samples drawn from them passes."""

from __future__ import annotations

import math

__all__ = ["pass_at_k"]


def pass_at_k(num_samples: int, num_passes: int, k: int) -> float:
    """Return 1 - C(n - c, k) / C(n, k), for n samples of which c pass.

    It is unbiased, unlike 1 - (1 - c/n)^k, which is too low. Computed as 1 - prod (1 - k/i) over i = n-c+1 ... n, whose
    factors lie in [0, 1], so that nothing overflows.

    Raises:
        ValueError: Unless 0 <= c <= n and 1 <= k <= n.

    References:
        Chen et al., 2021, Evaluating Large Language Models Trained on Code, arXiv:2107.03374, equation 1.

    >>> pass_at_k(10, 3, 1), round(pass_at_k(10, 3, 5), 6), pass_at_k(10, 6, 5)
    (0.3, 0.916667, 1.0)
    """
    if not (0 <= num_passes <= num_samples and 1 <= k <= num_samples):
        raise ValueError(f"pass@{k} of {num_passes} passes in {num_samples} samples")
    if k == 1:
        return num_passes / num_samples
    if num_samples - num_passes < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(num_samples - num_passes + 1, num_samples + 1))
