"""Learning rate over a run: linear warm-up, then linear decay to zero.

Paper: BERT (arXiv:1810.04805), appendix A.2.
"""


def linear(progress: float, *, warmup: float) -> float:
    """Factor of the peak learning rate.

    Args:
        progress: Share of the run that is done, in [0, 1].
        warmup: Share of the run that warms up.
    """
    if progress < warmup:
        return progress / warmup
    return max(0.0, (1 - progress) / (1 - warmup)) if warmup < 1 else 1.0
