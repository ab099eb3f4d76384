"""Sampling by temperature, among the likeliest tokens; each sequence draws from a stream of its own.

Papers: Hierarchical Neural Story Generation (arXiv:1805.04833) for top-k; The Curious Case of Neural Text Degeneration
(arXiv:1904.09751) for top-p.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.base.random import numpy_stream
from tunesmith.base.shapes import Float, Int, Tensor

SHORT_LIST = 512
"""Tokens that are sorted first for top-p; all are, where these have too little probability."""


class Sampler:
    """Draws one number for each sequence and step, so that a sample does not depend on its batch.

    Args:
        seeds: Seed of each sequence.
        temperature: Logits are divided by it; above 0.
        top_k: Only so many of the likeliest tokens; 0 for all.
        top_p: Only the likeliest tokens that have this probability together; 1 for all.
    """

    def __init__(self, seeds: Sequence[int], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0):
        self.streams: list[np.random.Generator] = [numpy_stream("sample", seed) for seed in seeds]
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    def __call__(self, logits: Float[Tensor, "B V"], numbers: list[int]) -> Int[Tensor, "B"]:
        """A token of each sequence."""
        drawn = torch.tensor([self.streams[i].random() for i in numbers], dtype=torch.float64, device=logits.device)
        logits = (logits / self.temperature).double()
        tokens = None
        if 0 < self.top_k < logits.shape[-1]:
            logits, tokens = logits.topk(self.top_k)
        chances = logits.softmax(-1)
        if self.top_p < 1:
            if tokens is None:
                chances, tokens = self._likeliest(chances)
            before = chances.cumsum(-1) - chances
            chances = chances.masked_fill(before >= self.top_p, 0.0)  # the likeliest always stays
        places = _invert(chances, drawn)
        return places if tokens is None else tokens.gather(-1, places[:, None])[:, 0]

    def _likeliest(self, chances: Float[Tensor, "B V"]) -> tuple[Float[Tensor, "B W"], Int[Tensor, "B W"]]:
        """The likeliest tokens first: a short list, where it has enough probability, else all."""
        if chances.shape[-1] > SHORT_LIST:
            best, tokens = chances.topk(SHORT_LIST)
            if bool((best.sum(-1) >= self.top_p).all()):
                return best, tokens
        ordered = chances.sort(descending=True)
        return ordered.values, ordered.indices


def _invert(chances: Float[Tensor, "B V"], drawn: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """The first place where the running sum passes the drawn share of the whole."""
    sums = chances.cumsum(-1)
    limit = drawn[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, limit, right=True)[:, 0].clamp(max=chances.shape[-1] - 1)
