"""A stack of blocks over packed documents, encoder or decoder, and the settings that shape it."""

from typing import Annotated

import pydantic
import torch

from tunesmith.base import choices
from tunesmith.base.config import Config
from tunesmith.base.layout import Layout, Reach, pair, spare_rows
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.attention import Attention, Biases, Cached, Memory, Rows
from tunesmith.nn.block import Block, Order
from tunesmith.nn.cache import Cache
from tunesmith.nn.convolution import ConvolutionConfig
from tunesmith.nn.dropout import dropout
from tunesmith.nn.embeddings import Embeddings, Projection, QueryStream
from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.norm import NormConfig
from tunesmith.nn.position import Position, PositionConfig, PositionSizes

Count = Annotated[int, pydantic.Field(ge=1, le=10_000_000)]
Rate = Annotated[float, pydantic.Field(ge=0, lt=1)]
AnyPosition = Annotated[pydantic.SerializeAsAny[PositionConfig], choices.chosen("position")]

MOST = 0.9
"""Share of the tokens that are wanted of the last block, beyond which it runs on all of them: gathering costs more."""


class LayerConfig(Config):
    """What a layer has of its own; a stack repeats a short pattern of them."""

    window: int | None = pydantic.Field(
        default=None, ge=0, description="Tokens that it sees on either side (causal: before it); all by default."
    )
    position: AnyPosition | None = pydantic.Field(
        default=None, description="Position encoding without weights in place of the stack's, such as another theta."
    )


class TransformerConfig(Config):
    """Sizes and parts of a stack."""

    vocab_size: Count = pydantic.Field(description="Rows of the token table.")
    d_model: Count = pydantic.Field(description="Width of the model.")
    d_embedding: Count = pydantic.Field(description="Width of the embedding tables.")
    num_layers: Count = pydantic.Field(description="Number of blocks that a token goes through.")
    num_stored: Count | None = pydantic.Field(
        default=None, description="Blocks with weights of their own, each used several times in a row; all by default."
    )
    num_heads: Count = pydantic.Field(description="Attention heads.")
    num_kv_heads: Count | None = pydantic.Field(
        default=None, description="Heads of keys and values, each shared by several queries; num_heads by default."
    )
    d_head: Count | None = pydantic.Field(default=None, description="Width of a head; d_model / num_heads by default.")
    d_ff: Count = pydantic.Field(description="Width of the feed-forward layers.")
    max_positions: Count = pydantic.Field(description="Longest document, in tokens.")
    num_segments: Annotated[int, pydantic.Field(ge=0, le=10_000_000)] = pydantic.Field(
        description="Token types; 0 for none."
    )
    causal: bool = pydantic.Field(default=False, description="Whether a token sees only what stands before it.")
    cross_attention: bool = pydantic.Field(default=False, description="Whether blocks also read an encoder's output.")
    order: Order = pydantic.Field(default="post", description="post-norm (BERT) or pre-norm (GPT-2).")
    biases: Biases = pydantic.Field(default="all", description="Which attention maps have biases.")
    feedforward_bias: bool = pydantic.Field(default=True, description="Whether feed-forward maps have biases.")
    head_norm: bool = pydantic.Field(default=False, description="Normalise each query and key head, as in Qwen3.")
    embedding_norm: bool = pydantic.Field(default=True, description="Normalise the embeddings.")
    embedding_scale: float = pydantic.Field(default=1.0, gt=0, description="Factor of the token vectors.")
    embedding_projection: Projection = pydantic.Field(
        default="narrow",
        description="Map from embeddings to the model: behind the norm where they are narrower, always, or first.",
    )
    convolution: ConvolutionConfig | None = pydantic.Field(
        default=None, description="Convolution of the embeddings, added behind the first block (DeBERTa v2)."
    )
    query_stream: QueryStream = pydantic.Field(
        default="none", description="learned: it can also run a stream of queries that begins at one vector (XLNet)."
    )
    first_norm: bool = pydantic.Field(default=True, description="Whether the first block normalises its input.")
    attention_scale: float | None = pydantic.Field(
        default=None, gt=0, description="Factor of attention scores; that of the position encoding by default."
    )
    dropout: Rate = pydantic.Field(default=0.1, description="Dropout of embeddings and of each sub-layer's output.")
    embedding_dropout: Rate | None = pydantic.Field(default=None, description="Dropout of embeddings, if it differs.")
    attention_dropout: Rate = pydantic.Field(default=0.1, description="Dropout of attention weights.")
    feedforward_dropout: Rate = pydantic.Field(default=0.0, description="Dropout of inner feed-forward activations.")
    final_dropout: Rate = pydantic.Field(default=0.0, description="Dropout of the output of the stack.")
    initial_std: float = pydantic.Field(default=0.02, gt=0, description="Standard deviation of fresh weights.")
    position: AnyPosition = pydantic.Field(description="Position encoding.")
    feedforward: Annotated[pydantic.SerializeAsAny[FeedForwardConfig], choices.chosen("feedforward")] = pydantic.Field(
        description="Feed-forward layer."
    )
    norm: Annotated[pydantic.SerializeAsAny[NormConfig], choices.chosen("norm")] = pydantic.Field(
        description="Normalisation."
    )
    layers: tuple[LayerConfig, ...] = pydantic.Field(
        default=(LayerConfig(),), min_length=1, description="Pattern of layers, repeated."
    )

    @pydantic.model_validator(mode="after")
    def _sizes_fit(self) -> "TransformerConfig":
        if self.d_head is None and self.d_model % self.num_heads:
            raise ValueError(f"num_heads must divide d_model, got {self.num_heads} and {self.d_model}")
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_kv_heads must divide num_heads, got {self.kv_heads} and {self.num_heads}")
        if self.num_layers % self.stored:
            raise ValueError(f"num_stored must divide num_layers, got {self.stored} and {self.num_layers}")
        if self.convolution is not None and (self.causal or self.query_stream != "none"):
            raise ValueError("convolution: only bidirectional encoders with one stream can have it")
        if self.stored != self.num_layers and len(self.layers) > 1:
            raise ValueError("layers: shared blocks cannot have a pattern")
        return self

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.d_head or self.d_model // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def stored(self) -> int:
        """Blocks with weights of their own."""
        return self.num_stored or self.num_layers

    @property
    def segments(self) -> int | None:
        """Segments that tokens can have; None for any number, where only their being the same counts."""
        return None if self.position.compares_segments else max(self.num_segments, 1)

    @property
    def position_sizes(self) -> PositionSizes:
        """What position encodings are made from."""
        return PositionSizes(
            max_positions=self.max_positions,
            d_embedding=self.d_embedding,
            d_model=self.d_model,
            num_heads=self.num_heads,
            d_head=self.head_width,
            causal=self.causal,
        )


class Transformer(torch.nn.Module):
    """Embeddings and blocks; site names are ``embeddings``, ``blocks.0``, ``blocks.1``, ..., ``norm``.

    Args:
        config: What shapes it.
        tokens: A token table to share; one of its own by default.
    """

    def __init__(self, config: TransformerConfig, *, tokens: torch.nn.Embedding | None = None):
        super().__init__()
        self.config = config
        first = config.d_model if config.embedding_projection == "first" else 0
        self.embeddings = Embeddings(
            tokens=torch.nn.Embedding(config.vocab_size, config.d_embedding) if tokens is None else tokens,
            d_model=config.d_model,
            num_segments=config.num_segments,
            position=config.position.build(config.position_sizes) if not config.position.per_layer else Position(),
            norm=config.norm.build(width=first or config.d_embedding) if config.embedding_norm else None,
            dropout=config.dropout if config.embedding_dropout is None else config.embedding_dropout,
            scale=config.embedding_scale,
            projection=config.embedding_projection,
            query=config.query_stream,
        )
        self.patterns = torch.nn.ModuleList(
            torch.nn.Module() if layer.position is None else layer.position.build(config.position_sizes)
            for layer in config.layers
        )
        self.blocks = torch.nn.ModuleList(self._block(config, i) for i in range(config.stored))
        self.convolution = (
            None
            if config.convolution is None
            else config.convolution.build(d_model=config.d_model, norm=config.norm, dropout=config.dropout)
        )
        self.norm = config.norm.build(width=config.d_model) if config.order == "pre" else None

    @staticmethod
    def _block(config: TransformerConfig, i: int) -> Block:
        def norm() -> torch.nn.Module:
            return config.norm.build(width=config.d_model)

        def attention(*, cross: bool) -> Attention:
            window = None if cross else config.layers[i % len(config.layers)].window
            own = config.position.per_layer and not cross
            scale = config.attention_scale
            return Attention(
                d_model=config.d_model,
                num_heads=config.num_heads,
                d_head=config.head_width,
                num_kv_heads=config.kv_heads,
                scale=config.position.scale(config.head_width) if scale is None else scale,
                dropout=config.attention_dropout,
                biases=config.biases,
                head_norm=config.norm if config.head_norm else None,
                reach=Reach(window, 0 if config.causal and not cross else window),
                position=config.position.build(config.position_sizes) if own else None,
                own_projections="none" if cross else config.position.own_projections,
            )

        return Block(
            order=config.order,
            attention=attention(cross=False),
            feedforward=config.feedforward.build(
                d_model=config.d_model,
                d_ff=config.d_ff,
                bias=config.feedforward_bias,
                dropout=config.feedforward_dropout,
            ),
            attention_norm=norm() if config.first_norm or i else torch.nn.Identity(),
            feedforward_norm=norm(),
            dropout=config.dropout,
            cross_attention=attention(cross=True) if config.cross_attention else None,
            cross_norm=norm() if config.cross_attention else None,
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
        memory: tuple[Float[Tensor, "S D"], Layout] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "M D"]:
        """Hidden states after the last block that is asked for.

        Args:
            token_ids: Packed token ids.
            layout: Where the documents lie.
            vectors: Packed embeddings in place of token ids.
            dtype: Type to compute in; that of the embeddings by default.
            num_layers: Stop after this many blocks; the final norm belongs to the last one.
            rows: Packed rows wanted of the last block, in packed order; all by default.
            memory: Packed hidden states that cross-attention reads, and where their documents lie.
            cache: Keys and values of earlier tokens; those of these tokens are added.
        """
        x = self.embeddings(token_ids, layout, vectors=vectors)
        x = x if dtype is None else x.to(dtype)
        last = self.config.num_layers if num_layers is None else num_layers
        view = None if cache is None else cache.begin(layout)
        step = view is not None and (not view.fresh or memory is not None)
        step = step or (self.convolution is not None and last == 1)  # all tokens go through, the wanted are taken
        step = step or (rows is not None and len(rows) > MOST * layout.num_tokens)
        ending = None
        if rows is not None and not step and last:
            spare = rows.new_zeros(spare_rows(len(rows)))
            ending = Rows(torch.cat([rows, spare]), pair(layout, layout, rows=rows))
        read = None if memory is None else Memory(*memory, pair(layout, memory[1]) if cache is None else None)
        states, embedded = self.states(layout, x), x
        for i in range(last):
            at_end = i == last - 1
            if at_end and ending is not None and memory is not None:
                read = Memory(*memory, pair(layout, memory[1], rows=rows))
            position, state = states[i % len(states)]
            x = self.block_at(i)(
                x,
                layout,
                position=position,
                state=state,
                rows=ending if at_end else None,
                memory=read,
                cached=None if cache is None or view is None else Cached(cache, cache.layers[i], view),
            )
            if i == 0 and self.convolution is not None:
                x = self.convolution(embedded, x, layout)
        if self.norm is not None and last == self.config.num_layers:
            x = self.norm(x)
        x = dropout(x, self.config.final_dropout, layout.noise)
        if rows is None:
            return x
        return x.index_select(0, rows) if ending is None else x[: len(rows)]

    def block_at(self, i: int) -> torch.nn.Module:
        """The block that a token goes through as its i-th; shared blocks come several times."""
        return self.blocks[i * self.config.stored // self.config.num_layers]

    def states(self, layout: Layout, x: Tensor) -> list[tuple[Position, object]]:
        """The position encoding of each layer of the pattern, and what it has prepared."""
        shared = self.embeddings.position
        encodings = [module if isinstance(module, Position) else shared for module in self.patterns]
        states = {encoding: encoding.prepare(layout, x) for encoding in dict.fromkeys(encodings)}
        return [(encoding, states[encoding]) for encoding in encodings]
