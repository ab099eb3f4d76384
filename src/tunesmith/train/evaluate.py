"""Logits of many examples, shortest first, without padding and without gradients."""

import torch

from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model
from tunesmith.text.batching import Examples, cut_by_tokens, pack


@torch.no_grad()
def logits_of(model: Model, examples: Examples, *, max_tokens: int = 4096) -> list[Tensor]:
    """Logits of each example, in order, in fp32 on the CPU: (C,), or (T, C) for heads that read all tokens.

    Args:
        model: A model with a head.
        examples: What to run.
        max_tokens: Tokens of a batch, at most.
    """
    found: list[Tensor] = [torch.empty(0)] * len(examples)
    for indices in cut_by_tokens(range(len(examples)), examples.lengths, max_tokens=max_tokens):
        batch = pack(examples, indices, device=model.device)
        logits = model.logits(batch.token_ids, batch.layout).float().cpu()
        per_token = model.head is not None and model.head.reads == "all"
        rows = logits.split(list(batch.layout.lengths)) if per_token else logits.unbind()
        for i, row in zip(batch.indices, rows, strict=True):
            found[i] = row
    return found
