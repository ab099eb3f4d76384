"""A stack of blocks over packed documents, and the settings that shape it."""

from typing import Annotated

import pydantic
import torch

from tunesmith.base import choices
from tunesmith.base.config import Config
from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.block import Block
from tunesmith.nn.embeddings import Embeddings
from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.norm import NormConfig
from tunesmith.nn.position import PositionConfig

Count = Annotated[int, pydantic.Field(ge=1, le=10_000_000)]
Rate = Annotated[float, pydantic.Field(ge=0, lt=1)]


class TransformerConfig(Config):
    """Sizes and parts of an encoder."""

    vocab_size: Count = pydantic.Field(description="Rows of the token table.")
    d_model: Count = pydantic.Field(description="Width of the model.")
    d_embedding: Count = pydantic.Field(description="Width of the embedding tables.")
    num_layers: Count = pydantic.Field(description="Number of blocks.")
    num_heads: Count = pydantic.Field(description="Attention heads; divides d_model.")
    d_ff: Count = pydantic.Field(description="Width of the feed-forward layers.")
    max_positions: Count = pydantic.Field(description="Longest document, in tokens.")
    num_segments: Count = pydantic.Field(description="Token types.")
    dropout: Rate = pydantic.Field(default=0.1, description="Dropout of embeddings and of each sub-layer's output.")
    attention_dropout: Rate = pydantic.Field(default=0.1, description="Dropout of attention weights.")
    initial_std: float = pydantic.Field(default=0.02, gt=0, description="Standard deviation of fresh weights.")
    position: Annotated[pydantic.SerializeAsAny[PositionConfig], choices.chosen("position")] = pydantic.Field(
        description="Position encoding."
    )
    feedforward: Annotated[pydantic.SerializeAsAny[FeedForwardConfig], choices.chosen("feedforward")] = pydantic.Field(
        description="Feed-forward layer."
    )
    norm: Annotated[pydantic.SerializeAsAny[NormConfig], choices.chosen("norm")] = pydantic.Field(
        description="Normalisation."
    )

    @pydantic.model_validator(mode="after")
    def _heads_divide_width(self) -> "TransformerConfig":
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads must divide d_model, got {self.num_heads} and {self.d_model}")
        return self


class Transformer(torch.nn.Module):
    """Embeddings and blocks; site names are ``embeddings``, ``blocks.0``, ``blocks.1``, ..."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.embeddings = Embeddings(
            vocab_size=config.vocab_size,
            d_embedding=config.d_embedding,
            d_model=config.d_model,
            num_segments=config.num_segments,
            max_positions=config.max_positions,
            position=config.position,
            norm=config.norm,
            dropout=config.dropout,
        )
        self.blocks = torch.nn.ModuleList(
            Block(
                d_model=config.d_model,
                num_heads=config.num_heads,
                d_ff=config.d_ff,
                feedforward=config.feedforward,
                norm=config.norm,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
            )
            for _ in range(config.num_layers)
        )

    def forward(
        self,
        token_ids: Int[Tensor, "N"] | None,
        layout: Layout,
        *,
        vectors: Float[Tensor, "N E"] | None = None,
        dtype: torch.dtype | None = None,
        num_layers: int | None = None,
        rows: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "M D"]:
        """Hidden states after the last block that is asked for.

        Args:
            token_ids: Packed token ids.
            layout: Where the documents lie.
            vectors: Packed embeddings in place of token ids.
            dtype: Type to compute in; that of the embeddings by default.
            num_layers: Stop after this many blocks.
            rows: Packed rows wanted of the last block; all by default.
        """
        x = self.embeddings(token_ids, layout, vectors=vectors)
        x = x if dtype is None else x.to(dtype)
        blocks = self.blocks[:num_layers]
        for i, block in enumerate(blocks):
            x = block(x, layout, rows=rows if i == len(blocks) - 1 else None)
        return x if len(blocks) or rows is None else x.index_select(0, rows)
