"""No positions: the order of the tokens is unknown to the model, but for causal attention.

Paper: Transformer Language Models without Positional Encodings Still Learn Positional Information (arXiv:2203.16634).
"""

from tunesmith.nn.position import Position, PositionConfig


class NoneConfig(PositionConfig):
    """No settings."""

    def build(self, *, max_positions: int, width: int) -> Position:
        """A module that does nothing."""
        return Position()
