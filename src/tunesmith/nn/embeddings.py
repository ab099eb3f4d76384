"""Token, position and segment embeddings, normalised, and projected where the table is narrower than the model."""

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.dropout import dropout
from tunesmith.nn.linear import Linear
from tunesmith.nn.position import Position

Projection = Literal["narrow", "always", "first"]
QueryStream = Literal["none", "learned"]


class Embeddings(torch.nn.Module):
    """norm(scale tokens + segments + positions), then dropout, then the projection of ELECTRA and ALBERT.

    Paper: BERT (arXiv:1810.04805), figure 2; ELECTRA (arXiv:2003.10555), section 3.2 for the projection.

    Args:
        tokens: The token table; encoder and decoder may share one.
        d_model: Width of the model.
        num_segments: Rows of the segment table; 0 for none.
        position: The stack's position encoding.
        norm: Normalisation of the sum; none where None.
        dropout: Rate after it.
        scale: Factor of the token vectors.
        query: learned: beside tokens, there is a vector at which a stream of queries begins (XLNet).
        projection: narrow: behind the norm, where the table is narrower (ELECTRA); always: even where it is not
            (ALBERT); first: before the norm and without bias, where it is narrower (DeBERTa).
    """

    def __init__(
        self,
        *,
        tokens: torch.nn.Embedding,
        d_model: int,
        num_segments: int,
        position: Position,
        norm: torch.nn.Module | None,
        dropout: float,
        scale: float = 1.0,
        projection: Projection = "narrow",
        query: QueryStream = "none",
    ):
        super().__init__()
        width = tokens.embedding_dim
        self.dropout, self.scale = dropout, scale
        self.tokens = tokens
        self.segments = torch.nn.Embedding(num_segments, width) if num_segments else None
        self.position = position
        self.norm = norm
        self.query = torch.nn.Parameter(torch.zeros(1, width)) if query == "learned" else None
        wanted = width != d_model or projection == "always"
        self.project_first = projection == "first"
        self.project = Linear(width, d_model, bias=not self.project_first) if wanted else None

    def forward(
        self, token_ids: Int[Tensor, "N"] | None, layout: Layout, *, vectors: Float[Tensor, "N E"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Embed packed tokens, or take their vectors as given: those are not scaled, as in transformers."""
        if vectors is None:
            assert token_ids is not None
            vectors = F.embedding(token_ids, self.tokens.weight)
            vectors = vectors if self.scale == 1.0 else vectors * self.scale
        x = vectors
        if self.segments is not None:
            x = x + F.embedding(layout.segments, self.segments.weight)
        return self._finished(x, layout)

    def queries(self, layout: Layout, rows: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        """Where the query stream of some packed rows begins: one vector for all, at their positions."""
        assert self.query is not None
        where = replace(layout, positions=layout.positions[rows], segments=layout.segments[rows])
        return self._finished(self.query.expand(len(rows), -1), where)

    def _finished(self, x: Float[Tensor, "N E"], layout: Layout) -> Float[Tensor, "N D"]:
        x = self.position.embed(x, layout)
        if self.project is not None and self.project_first:
            x = self.project(x)
        x = dropout(x if self.norm is None else self.norm(x), self.dropout, layout.noise)
        return x if self.project is None or self.project_first else self.project(x)
