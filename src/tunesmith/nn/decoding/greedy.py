"""Greedy decoding: always the likeliest token."""

from tunesmith.base.shapes import Float, Int, Tensor


def greedy(logits: Float[Tensor, "B V"], numbers: list[int]) -> Int[Tensor, "B"]:
    """The likeliest token of each sequence."""
    return logits.argmax(-1)
