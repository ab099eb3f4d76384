"""Token, position and segment embeddings, normalised, and projected where the table is narrower than the model."""

import torch
import torch.nn.functional as F

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.dropout import dropout
from tunesmith.nn.linear import Linear
from tunesmith.nn.norm import NormConfig
from tunesmith.nn.position import PositionConfig


class Embeddings(torch.nn.Module):
    """norm(tokens + segments + positions), then dropout, then the projection of ELECTRA and ALBERT where widths differ.

    Paper: BERT (arXiv:1810.04805), figure 2; ELECTRA (arXiv:2003.10555), section 3.2 for the projection.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        d_embedding: int,
        d_model: int,
        num_segments: int,
        max_positions: int,
        position: PositionConfig,
        norm: NormConfig,
        dropout: float,
    ):
        super().__init__()
        self.dropout = dropout
        self.tokens = torch.nn.Embedding(vocab_size, d_embedding)
        self.segments = torch.nn.Embedding(num_segments, d_embedding)
        self.position = position.build(max_positions=max_positions, width=d_embedding)
        self.norm = norm.build(width=d_embedding)
        self.project = Linear(d_embedding, d_model) if d_embedding != d_model else None

    def forward(
        self, token_ids: Int[Tensor, "N"] | None, layout: Layout, *, vectors: Float[Tensor, "N E"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Embed packed tokens, or take their vectors as given."""
        if vectors is None:
            assert token_ids is not None
            vectors = F.embedding(token_ids, self.tokens.weight)
        x = vectors + F.embedding(layout.segments, self.segments.weight)
        x = dropout(self.norm(self.position.embed(x, layout)), self.dropout, layout.noise)
        return x if self.project is None else self.project(x)
