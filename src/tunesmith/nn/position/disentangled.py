"""DeBERTa's disentangled attention: content to position and position to content, over logarithmic buckets.

Paper: DeBERTa (arXiv:2006.03654), equation 4; DeBERTaV3 (arXiv:2111.09543) for buckets and shared projections.
Differs from the paper as both released codes do: position to content is looked up at i - j, not j - i.
"""

from typing import Literal, NamedTuple

import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.layout import Group, Layout
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.distances import Distances
from tunesmith.nn.dropout import dropout
from tunesmith.nn.position import Layer, OwnMaps, Position, PositionConfig, PositionSizes
from tunesmith.nn.position.learned import Learned


class DisentangledConfig(PositionConfig):
    """Settings of disentangled attention."""

    num_buckets: int = pydantic.Field(
        default=256,
        ge=0,
        le=10_000_000,
        description="Buckets for each sign ($k$); 0: every distance by itself, up to the longest.",
    )
    max_distance: int = pydantic.Field(default=512, ge=2, le=10_000_000, description="Distance of the last bucket.")
    terms: Literal["both", "c2p", "p2c", "none"] = pydantic.Field(
        default="both", description="c2p: content to position; p2c: position to content."
    )
    projections: Literal["shared", "own"] = pydantic.Field(
        default="shared",
        description="Positions go through the layer's query and key maps, or through maps of their own.",
    )
    absolute: Literal["none", "learned"] = pydantic.Field(
        default="none", description="Positions that are added to the embeddings besides (position_biased_input)."
    )
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1, description="Dropout of the position vectors.")
    norm: bool = pydantic.Field(default=True, description="Normalise the position vectors (norm_rel_ebd).")
    eps: float = pydantic.Field(default=1e-7, gt=0, description="Added to the variance there.")

    def build(self, sizes: PositionSizes) -> "Disentangled":
        """The module."""
        return Disentangled(
            d_model=sizes.d_model,
            num_heads=sizes.num_heads,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
            terms=self.terms,
            norm_eps=self.eps if self.norm else None,
            dropout=self.dropout,
            absolute=None
            if self.absolute == "none"
            else Learned(max_positions=sizes.max_positions, width=sizes.d_embedding),
        )

    @property
    def own_projections(self) -> OwnMaps:
        """Those that the terms need, unless positions go through the layer's own query and key maps."""
        if self.projections == "shared" or self.terms == "none":
            return "none"
        return "both" if self.terms == "both" else "key" if self.terms == "c2p" else "query"

    def scale(self, d_head: int) -> float:
        """1 / sqrt(K (1 + number of terms))."""
        return (d_head * {"both": 3, "c2p": 2, "p2c": 2, "none": 1}[self.terms]) ** -0.5

    def width(self, length: int) -> int:
        """Every distance, for each term."""
        return {"both": 2, "c2p": 1, "p2c": 1, "none": 0}[self.terms] * (2 * length - 1)


class _Ready(NamedTuple):
    table: Float[Tensor, "W D"] | None
    noise: torch.Generator | None


class Disentangled(Position):
    """score_ij += scale (q_i . W_k r[b(i - j)] + k_j . W_q r[b(i - j)])."""

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        num_buckets: int,
        max_distance: int,
        terms: str,
        norm_eps: float | None,
        dropout: float = 0.0,
        absolute: Learned | None = None,
    ):
        super().__init__()
        self.relative = terms != "none"
        self.dropout, self.absolute = dropout, absolute
        self.num_heads, self.num_buckets, self.max_distance, self.terms = num_heads, num_buckets, max_distance, terms
        self.span = num_buckets or max_distance
        self.weight = torch.nn.Parameter(torch.zeros(2 * self.span, d_model)) if self.relative else None
        self.norm = torch.nn.LayerNorm(d_model, eps=norm_eps) if self.relative and norm_eps is not None else None

    def embed(self, x: Float[Tensor, "N E"], layout: Layout) -> Float[Tensor, "N E"]:
        """Embeddings, with absolute positions where they have them."""
        return x if self.absolute is None else self.absolute.embed(x, layout)

    def prepare(self, layout: Layout, like: Tensor) -> _Ready:
        """The normalised table, and the stream of each layer's dropout."""
        return _Ready(self.weight if self.weight is None or self.norm is None else self.norm(self.weight), layout.noise)

    def scores(
        self,
        query: Float[Tensor, "G H T K"],
        key: Float[Tensor, "G H S K"],
        distances: Distances,
        group: Group,
        layer: Layer,
        state: _Ready,
    ) -> Float[Tensor, "G H T S"] | None:
        """Both terms; only the rows of distances that occur are projected."""
        rows = -distances.values  # query - key
        if self.num_buckets:
            rows = log_buckets(rows, num_buckets=self.num_buckets, max_distance=self.max_distance)
        assert state.table is not None
        table = dropout(state.table, self.dropout, state.noise)
        vectors = F.embedding((rows + self.span).clamp(0, 2 * self.span - 1), table).to(query.dtype)  # (W, D)
        found = None
        if self.terms != "p2c":
            keys = self._heads(layer.project_key(vectors) * layer.scale, like=query)
            found = distances.by_query(query @ keys)
        if self.terms != "c2p":
            queries = self._heads(layer.project_query(vectors) * layer.scale, like=key)
            more = distances.by_key(key @ queries)
            found = more if found is None else found + more
        return found

    def _heads(self, x: Float[Tensor, "W D"], *, like: Tensor) -> Float[Tensor, "H K W"]:
        return x.view(len(x), self.num_heads, -1).permute(1, 2, 0).to(like.dtype)


def log_buckets(distance: Int[Tensor, "W"], *, num_buckets: int, max_distance: int) -> Int[Tensor, "W"]:
    """Exact up to half the buckets, then logarithmic up to ``max_distance``, with the distance's sign.

    In fp32 as in the reference.
    """
    middle = num_buckets // 2
    sign = distance.sign()
    away = torch.where(distance.abs() < middle, torch.full_like(distance, middle - 1), distance.abs())
    share = torch.log(away.float() / middle) / torch.log(torch.tensor((max_distance - 1) / middle))
    far = torch.ceil(share * (middle - 1)) + middle
    return torch.where(away <= middle, distance, (far * sign).long())
