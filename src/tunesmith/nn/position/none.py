"""No positions: the order of the tokens is unknown to the model, but for causal attention.

Paper: Transformer Language Models without Positional Encodings Still Learn Positional Information (arXiv:2203.16634).
"""

from tunesmith.nn.position import Position, PositionConfig, PositionSizes


class NoneConfig(PositionConfig):
    """No settings."""

    def build(self, sizes: PositionSizes) -> Position:
        """A module that does nothing."""
        return Position()
