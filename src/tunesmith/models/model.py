"""Model: an encoder, a head, a tokenizer; loaded from and saved to Hugging Face folders without loss."""

from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
import torch

from tunesmith.base import choices
from tunesmith.base.config import Config
from tunesmith.base.layout import Layout, make_layout
from tunesmith.base.shapes import Bool, Float, Int, Shaped, Tensor
from tunesmith.models import Family
from tunesmith.models._fill import fill
from tunesmith.models._keys import foreign_name
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head.classify import Classify, ClassifyConfig
from tunesmith.nn.pooling import pool
from tunesmith.nn.transformer import Transformer, TransformerConfig
from tunesmith.text.tokenizer import Tokenizer


class ModelConfig(Config):
    """All that shapes a model."""

    family: str = pydantic.Field(description="Model family, as in `tunesmith list model`.")
    encoder: TransformerConfig = pydantic.Field(description="The encoder.")
    head: Annotated[pydantic.SerializeAsAny[HeadConfig], choices.chosen("head")] | None = pydantic.Field(
        default=None, description="The head."
    )
    labels: tuple[str, ...] = pydantic.Field(default=(), description="Names of the head's outputs, in order.")
    foreign: dict[str, Any] = pydantic.Field(default={}, description="Other fields of config.json, kept as they are.")


@dataclass(frozen=True)
class Output:
    """What a model returns.

    Attributes:
        hidden: Hidden states of the last block, (B, T, D); zeros where the attention mask is 0.
        logits: (B, C), or (B, T, C) for heads that read all tokens; None without such a head.
        pooled: (B, D) of a pooling head; None otherwise.
    """

    hidden: Tensor
    logits: Tensor | None = None
    pooled: Tensor | None = None


class Model(torch.nn.Module):
    """An encoder and a head over packed documents, with transformers' calling convention on top.

    Attributes:
        config: What shapes the model.
        encoder: The `Transformer`.
        head: The `Head`, or None.
        tokenizer: The `Tokenizer`, or None.
        aside: Tensors of the checkpoint that this head does not use, under their foreign names.
        fresh: Names of parameters that no checkpoint gave.
        source: Where the weights came from.
        architecture: The transformers class named by the checkpoint, while the head is still the checkpoint's.
        compute_dtype: Type to compute the encoder in; that of its weights if None.
    """

    def __init__(self, config: ModelConfig, *, tokenizer: Tokenizer | None = None):
        super().__init__()
        self.config = config
        self.encoder = Transformer(config.encoder)
        self.head = self._make_head(config.head)
        self.tokenizer = tokenizer
        self.aside: dict[str, Tensor] = {}
        self.fresh: tuple[str, ...] = ()
        self.source = ""
        self.architecture: str | None = None
        self.compute_dtype: torch.dtype | None = None

    def _make_head(self, config: HeadConfig | None) -> Head | None:
        encoder = self.config.encoder
        sizes = Sizes(
            encoder.d_model, encoder.d_embedding, encoder.vocab_size, encoder.norm, self.encoder.embeddings.tokens
        )
        return None if config is None else config.build(sizes)

    @property
    def family(self) -> Family:
        """The table of this model's family."""
        return choices.module("model", self.config.family).FAMILY

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.encoder.embeddings.tokens.weight.device

    def forward(
        self,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Shaped[Tensor, "B T"] | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
        inputs_embeds: Float[Tensor, "B T E"] | None = None,
    ) -> Output:
        """Run padded rows, as transformers takes them; padding is left out of the computation.

        Args:
            input_ids: Token ids.
            attention_mask: 1 for real tokens, 0 for padding, on either side; all real by default.
            token_type_ids: Segments; 0 by default.
            position_ids: Positions; counted as the family counts them by default.
            inputs_embeds: Embeddings in place of token ids.

        Raises:
            ValueError: Neither or both of ids and embeddings, a row without tokens, or rows that are too long.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        given = input_ids if input_ids is not None else inputs_embeds
        assert given is not None
        shape = given.shape[:2]
        real = torch.ones(shape, dtype=torch.bool) if attention_mask is None else attention_mask.bool().cpu()
        if not real.any(1).all():
            raise ValueError("attention_mask: a row has no tokens")
        if position_ids is None:
            position_ids = self._positions(input_ids, shape)
        rows = self._pack_order(real).to(self.device)  # (N,): place of each packed token in the flat (B * T)
        order = real.sum(1).argsort(stable=True)
        layout = make_layout(
            real.sum(1)[order].tolist(),
            device=self.device,
            positions=position_ids.to(self.device).expand(shape).reshape(-1)[rows],
            segments=None if token_type_ids is None else token_type_ids.to(self.device).reshape(-1)[rows],
            noise=_stream_of_training(self.device) if self.training else None,
        )
        hidden = self.encoder(
            None if input_ids is None else input_ids.to(self.device).reshape(-1)[rows],
            layout,
            vectors=None if inputs_embeds is None else inputs_embeds.to(self.device).flatten(0, 1)[rows],
            dtype=self.compute_dtype,
        )
        padded = hidden.new_zeros(shape[0] * shape[1], hidden.shape[1]).index_copy(0, rows, hidden)
        output = Output(hidden=padded.view(*shape, -1))
        if self.head is None:
            return output
        if isinstance(self.head, Classify) and self._head_layer() is not None:
            raise ValueError("this head reads an inner layer: use model.logits on a packed batch")
        logits = self.head(self._read(hidden, layout), layout.noise)
        if self.head.reads == "all":
            spread = logits.new_zeros(shape[0] * shape[1], logits.shape[1]).index_copy(0, rows, logits)
            return Output(hidden=output.hidden, logits=spread.view(*shape, -1))
        logits = logits[order.argsort().to(self.device)]
        pooled = self.config.head is not None and self.config.head.choice_name() == "pool"
        return Output(hidden=output.hidden, **({"pooled": logits} if pooled else {"logits": logits}))

    def logits(self, token_ids: Int[Tensor, "N"], layout: Layout) -> Float[Tensor, "M C"]:
        """Logits of packed documents, in packed order, with no work on what the head does not read."""
        assert self.head is not None
        first = self.head.reads == "first"
        hidden = self.encoder(
            token_ids,
            layout,
            dtype=self.compute_dtype,
            num_layers=self._head_layer(),
            rows=layout.starts if first else None,
        )
        return self.head(hidden if first else self._read(hidden, layout), layout.noise)

    def with_head(self, config: HeadConfig | None, *, labels: tuple[str, ...] = (), seed: int = 0) -> "Model":
        """This model with another head; its weights come from the checkpoint where it has them, else they are fresh.

        The encoder is shared with this model, not copied.
        """
        model = Model(
            ModelConfig(
                family=self.config.family,
                encoder=self.config.encoder,
                head=config,
                labels=labels,
                foreign=self.config.foreign,
            ),
            tokenizer=self.tokenizer,
        )
        model.encoder = self.encoder
        model.head = model._make_head(config)
        model.source = self.source
        fill(model, self.aside | self.foreign_tensors(part="head"), part="head", strict=False, seed=seed)
        return model.to(self.device)

    def foreign_tensors(self, *, part: str = "") -> dict[str, Tensor]:
        """Parameters under their foreign names (``@`` is the base prefix); ``part``: only ``encoder`` or ``head``."""
        head = self.config.head.choice_name() if self.config.head else None
        return {
            foreign_name(name, self.family, head): parameter.detach()
            for name, parameter in self.named_parameters()
            if name.startswith(part)
        }

    def injected(self) -> list[str]:
        """Names of the parameters that its settings do not explain: those of adapters."""
        with torch.device("meta"):
            own = {name for name, _ in Model(self.config).named_parameters()}
        return [name for name, _ in self.named_parameters() if name not in own]

    def _positions(self, input_ids: Tensor | None, shape: torch.Size) -> Int[Tensor, "B T"]:
        if input_ids is None or self.family.pad_counts:
            return torch.arange(shape[1])[None]
        real = input_ids != self.config.foreign.get("pad_token_id", 1)
        return (real.cumsum(1) * real) - 1  # padding has position -1: the row before the first one

    def _pack_order(self, real: Bool[Tensor, "B T"]) -> Int[Tensor, "N"]:
        order = real.sum(1).argsort(stable=True)
        width = real.shape[1]
        documents, columns = real[order].nonzero(as_tuple=True)
        return order[documents] * width + columns

    def _read(self, hidden: Tensor, layout: Layout) -> Tensor:
        assert self.head is not None
        return hidden[: layout.num_tokens] if self.head.reads == "all" else pool(hidden, layout, self.head.reads)

    def _head_layer(self) -> int | None:
        return self.config.head.layer if isinstance(self.config.head, ClassifyConfig) else None


def _stream_of_training(device: torch.device) -> torch.Generator:
    generator = torch.Generator(device=device)
    generator.manual_seed(int(torch.randint(2**62, ()).item()))
    return generator
