"""Two-stream attention: predict tokens in any order, each from what comes before it in that order and its own place.

The content stream holds what a token is; the query stream holds where a predicted token stands, and begins at one
learned vector. Both go through the same blocks, and both read keys and values of the content stream.

Paper: XLNet (arXiv:1906.08237), section 2.3.
"""

from dataclasses import replace

import torch

from tunesmith.base.layout import Layout, pair
from tunesmith.base.shapes import Bool, Float, Int, Tensor
from tunesmith.nn.attention import Ahead, Rows
from tunesmith.nn.dropout import dropout
from tunesmith.nn.transformer import Transformer


def two_streams(
    stack: Transformer,
    token_ids: Int[Tensor, "N"] | None,
    layout: Layout,
    *,
    hidden: Bool[Tensor, "B T T"],
    targets: Int[Tensor, "M"] | None = None,
    vectors: Float[Tensor, "N E"] | None = None,
    dtype: torch.dtype | None = None,
    ahead: Ahead = "as the layer",
) -> Float[Tensor, "M D"]:
    """Hidden states of the query stream at the targets; without targets, those of the content stream at all tokens.

    Args:
        stack: An encoder with a query stream (``query_stream = "learned"``), if there are targets.
        token_ids: Packed token ids.
        layout: Where the documents lie.
        hidden: Where the token at one place of a document must not see that at another. A query sees its own token
            unless that is hidden; content always sees its own.
        targets: Packed rows to predict, documents in packed order.
        vectors: Packed embeddings in place of token ids.
        dtype: Type to compute in; that of the embeddings by default.
        ahead: What a token sees of what stands behind it; all: also in a causal stack, unless it is hidden.
    """
    x = stack.embeddings(token_ids, layout, vectors=vectors)
    x = x if dtype is None else x.to(dtype)
    itself = torch.eye(hidden.shape[1], dtype=torch.bool, device=hidden.device)
    content = Rows(torch.arange(len(x), device=x.device), pair(layout, layout, hidden=hidden & ~itself), ahead=ahead)
    query = None
    if targets is not None:
        begin = stack.embeddings.queries(layout, targets)
        query = Rows(targets, pair(layout, layout, rows=targets, hidden=hidden), begin.to(x.dtype), ahead)
    states = stack.states(layout, x)
    last = stack.config.num_layers - 1
    for i in range(last + 1):
        position, state = states[i % len(states)]
        block = stack.block_at(i)
        asked = None if query is None else block(x, layout, position=position, state=state, rows=query)
        if query is None or i < last:  # nobody reads the content behind the last queries
            x = block(x, layout, position=position, state=state, rows=content)
        query = query and replace(query, hidden=asked)
    found = x if query is None or query.hidden is None else query.hidden
    found = found if stack.norm is None else stack.norm(found)
    return dropout(found, stack.config.final_dropout, layout.noise)
