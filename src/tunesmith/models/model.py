"""Model: an encoder, a head, a tokenizer; loaded from and saved to Hugging Face folders without loss."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import pydantic
import torch

from tunesmith.base import choices
from tunesmith.base.config import Config
from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Int, Shaped, Tensor
from tunesmith.models import Family, Stacks
from tunesmith.models._fill import fill, stored
from tunesmith.models._generate import generate
from tunesmith.models._generation_settings import padding_of, settings_of
from tunesmith.models._keys import foreign_name
from tunesmith.models._padded import Padded
from tunesmith.models._permuted import hidden_pairs, targets_of
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head.classify import Classify, ClassifyConfig
from tunesmith.nn.pooling import pool
from tunesmith.nn.transformer import Transformer, TransformerConfig
from tunesmith.nn.two_streams import two_streams
from tunesmith.text.tokenizer import Tokenizer


class ModelConfig(Config):
    """All that shapes a model."""

    family: str = pydantic.Field(description="Model family, as in `tunesmith list model`.")
    encoder: TransformerConfig | None = pydantic.Field(default=None, description="The encoder.")
    decoder: TransformerConfig | None = pydantic.Field(default=None, description="The decoder.")
    head: Annotated[pydantic.SerializeAsAny[HeadConfig], choices.chosen("head")] | None = pydantic.Field(
        default=None, description="The head."
    )
    labels: tuple[str, ...] = pydantic.Field(default=(), description="Names of the head's outputs, in order.")
    foreign: dict[str, Any] = pydantic.Field(default={}, description="Other fields of config.json, kept as they are.")

    @property
    def stacks(self) -> Stacks:
        """Encoder and decoder."""
        return Stacks(self.encoder, self.decoder)

    @property
    def trunk(self) -> TransformerConfig:
        """The stack that heads read: the decoder, or the encoder of a model without one."""
        found = self.decoder or self.encoder
        assert found is not None
        return found


@dataclass(frozen=True)
class Output:
    """What a model returns; what it has not is None.

    Attributes:
        hidden: Hidden states of the last block of the trunk, (B, T, D); zeros where the attention mask is 0.
        encoder_hidden: Those of the encoder of an encoder-decoder, (B, S, D).
        logits: (B, C), or (B, T, C) for heads that read all tokens, or (B, N) over N choices.
        pooled: (B, D) of a pooling head.
        pair_logits: (B, 2) of a pretraining head: are the two texts neighbours, or in order.
        start_logits: (B, T) of a span head.
        end_logits: (B, T) of a span head.
    """

    hidden: Tensor
    encoder_hidden: Tensor | None = None
    logits: Tensor | None = None
    pooled: Tensor | None = None
    pair_logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None


class Model(torch.nn.Module):
    """An encoder, a decoder or both, and a head, over packed documents; transformers' calling convention on top.

    Attributes:
        config: What shapes the model.
        encoder: A `Transformer`, or None.
        decoder: A `Transformer`, or None; both share one token table.
        head: The `Head`, or None.
        tokenizer: The `Tokenizer`, or None.
        aside: Tensors of the checkpoint that this head does not use, under their foreign names.
        fresh: Names of parameters that no checkpoint gave.
        source: Where the weights came from.
        architecture: The transformers class named by the checkpoint, while the head is still the checkpoint's.
        compute_dtype: Type to compute the stacks in; that of their weights if None.
        generation: generation_config.json of the checkpoint.
    """

    def __init__(self, config: ModelConfig, *, tokenizer: Tokenizer | None = None):
        super().__init__()
        self.config = config
        self.encoder = None if config.encoder is None else Transformer(config.encoder)
        tokens = None if self.encoder is None else self.encoder.embeddings.tokens
        self.decoder = None if config.decoder is None else Transformer(config.decoder, tokens=tokens)
        self.head = self.make_head(config.head)
        self.tokenizer = tokenizer
        self.aside: dict[str, Tensor] = {}
        self.fresh: tuple[str, ...] = ()
        self.source = ""
        self.architecture: str | None = None
        self.compute_dtype: torch.dtype | None = None
        self.generation: dict[str, Any] = {}

    def make_head(self, config: HeadConfig | None) -> Head | None:
        """A head for this model's sizes and token table, with weights not yet set."""
        trunk = self.config.trunk
        sizes = Sizes(trunk.d_model, trunk.d_embedding, trunk.vocab_size, trunk.norm, self.trunk.embeddings.tokens)
        return None if config is None else config.build(sizes)

    @property
    def family(self) -> Family:
        """The table of this model's family, with the names that its settings decide."""
        table: Family = choices.module("model", self.config.family).FAMILY
        return table if table.keys_of is None else replace(table, keys=table.keys | table.keys_of(self.config.stacks))

    @property
    def trunk(self) -> Transformer:
        """The stack that heads read: the decoder, or the encoder of a model without one."""
        found = self.decoder if self.decoder is not None else self.encoder
        assert found is not None
        return found

    @property
    def stacks(self) -> list[Transformer]:
        """Encoder and decoder, as far as there are."""
        return [stack for stack in (self.encoder, self.decoder) if stack is not None]

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.trunk.embeddings.tokens.weight.device

    @property
    def base_prefix(self) -> str:
        """Name of the base model inside the transformers class of this model's head."""
        table = self.family.heads.get(self.config.head.choice_name()) if self.config.head else None
        return self.family.prefix if table is None or table.prefix is None else table.prefix

    def forward(
        self,
        input_ids: Int[Tensor, "..."] | None = None,
        attention_mask: Shaped[Tensor, "..."] | None = None,
        token_type_ids: Int[Tensor, "..."] | None = None,
        position_ids: Int[Tensor, "..."] | None = None,
        inputs_embeds: Float[Tensor, "..."] | None = None,
        decoder_input_ids: Int[Tensor, "B T"] | None = None,
        decoder_attention_mask: Shaped[Tensor, "B T"] | None = None,
        perm_mask: Shaped[Tensor, "B T T"] | None = None,
        target_mapping: Shaped[Tensor, "B M T"] | None = None,
    ) -> Output:
        """Run padded rows, as transformers takes them; padding is left out of the computation.

        Args:
            input_ids: Token ids, (B, T); (B, N, T) for N choices.
            attention_mask: 1 for real tokens, 0 for padding, on either side; all real by default.
            token_type_ids: Segments; 0 by default.
            position_ids: Positions; counted as the family counts them by default.
            inputs_embeds: Embeddings in place of token ids.
            decoder_input_ids: What the decoder of an encoder-decoder reads; by default the input moved to the right.
            decoder_attention_mask: As attention_mask, of these.
            perm_mask: 1 where a token (row) must not see another (column): XLNet's order of prediction.
            target_mapping: 1 where a prediction (row) is of a token (column); hidden states and logits are then those
                of the query stream, (B, M, ...), with zeros where nothing is predicted.

        Raises:
            ValueError: Neither or both of ids and embeddings, a row without tokens, rows that are too long, or segments
                other than 0 for a model without segments.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if input_ids is not None and input_ids.ndim == 3:
            return self._choices(input_ids, attention_mask, token_type_ids)
        given = input_ids if input_ids is not None else inputs_embeds
        assert given is not None
        shape = given.shape[:2]
        if position_ids is None:
            position_ids = self._positions(input_ids, shape)
        padded = Padded(shape, attention_mask, device=self.device)
        noise = _stream_of_training(self.device) if self.training else None
        if token_type_ids is not None and self.stacks[0].config.num_segments == 0:
            if self.stacks[0].config.segments is not None and token_type_ids.any():
                raise ValueError("token_type_ids: this model has no segments: leave them out, or give zeros")
        layout = padded.layout(position_ids, token_type_ids, noise)
        packed = None if input_ids is None else padded.pack(input_ids)
        vectors = None if inputs_embeds is None else padded.pack(inputs_embeds)
        if perm_mask is not None or target_mapping is not None:
            return self._permuted(packed, vectors, layout, padded, perm_mask, target_mapping)
        if self.encoder is None or self.decoder is None:
            hidden = self.trunk(packed, layout, vectors=vectors, dtype=self.compute_dtype)
            return self._output(hidden, layout, padded, None)
        memory = self.encoder(packed, layout, vectors=vectors, dtype=self.compute_dtype)
        encoded = padded.spread(memory)
        if decoder_input_ids is None:
            if input_ids is None:
                raise ValueError("give decoder_input_ids: without input_ids there is nothing to take them from")
            first = torch.full_like(input_ids[:, :1], self.decoder_start)
            decoder_input_ids = torch.cat([first, input_ids[:, :-1]], 1)
            if decoder_attention_mask is None and attention_mask is not None:
                # transformers masks nothing here: padding on the left is read, padding on the right stands behind all
                decoder_attention_mask = attention_mask.bool().flip(1).cumsum(1).flip(1) > 0
        shape = decoder_input_ids.shape[:2]
        padded = Padded(shape, decoder_attention_mask, device=self.device, order=padded.order)
        decoder_layout = padded.layout(self._positions(decoder_input_ids, shape), None, noise)
        decoder_ids = padded.pack(decoder_input_ids)
        hidden = self.decoder(decoder_ids, decoder_layout, dtype=self.compute_dtype, memory=(memory, layout))
        return self._output(hidden, decoder_layout, padded, encoded)

    def hidden(
        self,
        token_ids: Int[Tensor, "N"],
        layout: Layout,
        *,
        dtype: torch.dtype | None = None,
        num_layers: int | None = None,
        rows: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "M D"]:
        """Hidden states of packed documents; an encoder-decoder reads them a second time, moved one to the right."""
        dtype = self.compute_dtype if dtype is None else dtype
        if self.encoder is None or self.decoder is None:
            return self.trunk(token_ids, layout, dtype=dtype, num_layers=num_layers, rows=rows)
        memory = self.encoder(token_ids, layout, dtype=dtype)
        again = self.moved_right(token_ids, layout)
        return self.decoder(again, layout, dtype=dtype, num_layers=num_layers, rows=rows, memory=(memory, layout))

    def logits(self, token_ids: Int[Tensor, "N"], layout: Layout) -> Float[Tensor, "M C"]:
        """Logits of packed documents, in packed order, with no work on what the head does not read."""
        assert self.head is not None
        rows = {"first": layout.starts, "last": layout.ends}.get(self.head.reads)
        hidden = self.hidden(token_ids, layout, num_layers=self._head_layer(), rows=rows)
        return self.head(hidden if rows is not None else self._read(hidden, layout), layout.noise)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Shaped[Tensor, "B T"] | None = None,
        **settings: Any,
    ) -> Int[Tensor, "C U"]:
        """Go on from prompts, or answer what the encoder reads; padding may stand on either side.

        Args:
            input_ids: Token ids.
            attention_mask: 1 for real tokens; all real by default.
            **settings: Fields of `Generation`, under transformers' names, such as max_new_tokens, num_beams, do_sample.

        Returns:
            As transformers: the prompts as they were given with the new tokens behind them, or the decoder's tokens,
            padded on the right.

        Raises:
            SettingError: A setting is unknown or makes no sense.
            ValueError: The model cannot generate.
        """
        resolved = settings_of(self, settings, prompt=input_ids.shape[1] if self.encoder is None else 1)
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        documents = [row[mask.bool()].to(self.device) for row, mask in zip(input_ids, real, strict=True)]
        made = generate(self, documents, resolved, dtype=self.compute_dtype)
        pad = padding_of(self, resolved)
        width = max(len(tokens) for tokens in made)
        new = torch.tensor([tokens + [pad] * (width - len(tokens)) for tokens in made], device=self.device)
        if self.encoder is not None:
            return torch.cat([torch.full_like(new[:, :1], resolved.start or 0), new], 1)
        return torch.cat([input_ids.to(self.device).repeat_interleave(resolved.num_return_sequences, 0), new], 1)

    def moved_right(self, token_ids: Int[Tensor, "N"], layout: Layout) -> Int[Tensor, "N"]:
        """Packed documents without their last tokens and with the decoder's start token before the first."""
        moved = torch.cat([token_ids[:1], token_ids[:-1]])
        return moved.index_fill(0, layout.starts, self.decoder_start)

    @property
    def decoder_start(self) -> int:
        """What the decoder of an encoder-decoder reads first."""
        starts = (self.config.foreign.get(name) for name in ("decoder_start_token_id", "pad_token_id"))
        return next((start for start in starts if start is not None), 0)

    def with_head(self, config: HeadConfig | None, *, labels: tuple[str, ...] = (), seed: int = 0) -> "Model":
        """This model with another head; its weights come from the checkpoint where it has them, else they are fresh.

        The stacks are shared with this model, not copied. A head that transformers puts on the encoder of an
        encoder-decoder leaves the decoder out.
        """
        table = None if config is None else self.family.heads.get(config.choice_name())
        encoder_only = table is not None and table.architecture in self.family.encoder_only
        model = Model(
            ModelConfig(
                family=self.config.family,
                encoder=self.config.encoder,
                decoder=None if encoder_only else self.config.decoder,
                head=config,
                labels=labels,
                foreign=self.config.foreign,
            ),
            tokenizer=self.tokenizer,
        )
        model.encoder, model.decoder = self.encoder, None if encoder_only else self.decoder
        model.head = model.make_head(config)
        model.source, model.generation = self.source, self.generation
        fill(model, self.aside | self.foreign_tensors(part="head"), part="head", strict=False, seed=seed)
        return model.to(self.device)

    def foreign_tensors(self, *, part: str = "") -> dict[str, Tensor]:
        """What a file holds, by foreign name (``@`` is the base prefix); ``part``: only ``head`` and the like."""
        head = self.config.head.choice_name() if self.config.head else None
        return {
            foreign_name(name, self.family, head): parameter.detach()
            for name, parameter in stored(self).items()
            if name.startswith(part)
        }

    def injected(self) -> list[str]:
        """Names of the parameters that its settings do not explain: those of adapters."""
        with torch.device("meta"):
            own = {name for name, _ in Model(self.config).named_parameters(remove_duplicate=False)}
        return [name for name, _ in self.named_parameters() if name not in own]

    def _positions(self, input_ids: Tensor | None, shape: torch.Size) -> Int[Tensor, "B T"]:
        if input_ids is None or self.family.pad_counts:
            return torch.arange(shape[1])[None]
        real = input_ids != self.config.foreign.get("pad_token_id", 1)
        return (real.cumsum(1) * real) - 1  # padding has position -1: the row before the first one

    def _read(self, hidden: Tensor, layout: Layout) -> Tensor:
        assert self.head is not None
        if self.head.reads != "all":
            return pool(hidden, layout, self.head.reads)
        return self.head.in_context(hidden[: layout.num_tokens], layout)

    def _output(self, hidden: Tensor, layout: Layout, padded: Padded, encoded: Tensor | None) -> Output:
        output = Output(hidden=padded.spread(hidden), encoder_hidden=encoded)
        if self.head is None:
            return output
        if isinstance(self.head, Classify) and self._head_layer() is not None:
            raise ValueError("this head reads an inner layer: use model.logits on a packed batch")
        logits = self.head(self._read(hidden, layout), layout.noise)
        if self.head.reads != "all":
            name = "pooled" if self.head.gives == "pooled" else "logits"
            return replace(output, **{name: padded.in_order(logits)})
        spread = padded.spread(logits)
        if self.head.gives == "span":
            return replace(output, start_logits=spread[..., 0], end_logits=spread[..., 1])
        pair = self.head.pair_logits(pool(hidden, layout, "first"), layout.noise)
        spread = spread[..., 0] if self.head.gives == "numbers" else spread
        return replace(output, logits=spread, pair_logits=None if pair is None else padded.in_order(pair))

    def _permuted(
        self,
        packed: Tensor | None,
        vectors: Tensor | None,
        layout: Layout,
        padded: Padded,
        perm_mask: Tensor | None,
        target_mapping: Tensor | None,
    ) -> Output:
        """Two-stream attention."""
        if self.decoder is not None or self.trunk.embeddings.query is None:
            raise ValueError("perm_mask and target_mapping: only encoders with a query stream take them, such as XLNet")
        hidden = hidden_pairs(perm_mask, layout, padded.rows % padded.shape[1], padded.order)
        targets = None if target_mapping is None else targets_of(target_mapping, padded.rows, padded.order)
        found = two_streams(
            self.trunk,
            packed,
            layout,
            hidden=hidden,
            targets=None if targets is None else targets.rows,
            vectors=vectors,
            dtype=self.compute_dtype,
        )
        if targets is None:
            return self._output(found, layout, padded, None)
        if self.head is not None and self.head.reads != "all":
            raise ValueError("target_mapping: this head reads whole documents, not predicted tokens")
        logits = None if self.head is None else targets.spread(self.head(found, layout.noise))
        return Output(hidden=targets.spread(found), logits=logits)

    def _choices(self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None) -> Output:
        parts = [None if x is None else x.flatten(0, 1) for x in (input_ids, attention_mask, token_type_ids)]
        output = self(*parts)
        if output.logits is None or output.logits.ndim != 2:
            raise ValueError("input_ids of three dimensions are for a head over choices")
        return Output(hidden=output.hidden, logits=output.logits.view(input_ids.shape[:2]))

    def _head_layer(self) -> int | None:
        return self.config.head.layer if isinstance(self.config.head, ClassifyConfig) else None


def _stream_of_training(device: torch.device) -> torch.Generator:
    generator = torch.Generator(device=device)
    generator.manual_seed(int(torch.randint(2**62, ()).item()))
    return generator
