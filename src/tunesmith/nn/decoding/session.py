"""A decoder that goes on from prompts of any lengths, one step for all of them at a time."""

from collections.abc import Sequence

import torch

from tunesmith.base.layout import Layout, make_layout
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.cache import Cache
from tunesmith.nn.head.lm import LM
from tunesmith.nn.transformer import Transformer


class Session:
    """Sequences that grow; nothing is padded but the cache, on the right.

    Args:
        decoder: The stack; it must be causal.
        head: The language-model head.
        room: Tokens that a sequence may reach, as far as is known.
        memory: Packed hidden states that cross-attention reads, and where their documents lie.
        dtype: Type to compute in; that of the weights by default.
    """

    def __init__(
        self,
        decoder: Transformer,
        head: LM,
        *,
        room: int = 0,
        memory: tuple[Float[Tensor, "S D"], Layout] | None = None,
        dtype: torch.dtype | None = None,
    ):
        self.decoder, self.head, self.memory, self.dtype = decoder, head, memory, dtype
        self.cache = Cache.of(decoder.config.num_layers, room=room)

    def feed(self, documents: Sequence[Int[Tensor, "T"]]) -> Float[Tensor, "B V"]:
        """Let each sequence read some tokens; gives the logits of what comes next, in fp32 (or fp64)."""
        layout = self._behind(documents)
        return self._run(torch.cat(list(documents)), layout, layout.ends)

    def feed_all(self, documents: Sequence[Int[Tensor, "T"]]) -> Float[Tensor, "N V"]:
        """As `feed`, with the logits behind every token that is read, packed."""
        return self._run(torch.cat(list(documents)), self._behind(documents), None)

    def step(self, tokens: Int[Tensor, "B"]) -> Float[Tensor, "B V"]:
        """Let each sequence read one token."""
        layout = make_layout([1] * len(tokens), device=tokens.device, past=self.cache.lengths)
        return self._run(tokens, layout, None)

    def select(self, rows: Int[Tensor, "C"]) -> None:
        """Keep these sequences, in this order; one may stand there several times."""
        self.cache.select(rows)

    def _behind(self, documents: Sequence[Tensor]) -> Layout:
        """Where tokens lie that follow what the cache holds."""
        lengths = [len(document) for document in documents]
        return make_layout(lengths, device=documents[0].device, past=self.cache.lengths or None)

    def _run(self, token_ids: Tensor, layout: Layout, rows: Tensor | None) -> Tensor:
        memory = self.memory
        hidden = self.decoder(token_ids, layout, rows=rows, cache=self.cache, memory=memory, dtype=self.dtype)
        logits = self.head(hidden, None)
        return logits if logits.dtype == torch.float64 else logits.float()
