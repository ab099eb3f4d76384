"""The loop of greedy and sampled decoding: pick a token for each sequence, until each has come to its end."""

from collections.abc import Callable, Collection, Sequence

import torch

from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.decoding.session import Session

Pick = Callable[[Float[Tensor, "B V"], list[int]], Int[Tensor, "B"]]
"""The next token of each sequence, from its logits; the list says which sequences these are."""
Stop = Callable[[int, list[int]], bool]
"""Whether a sequence ends, from its number and the tokens made so far, the last one included."""
Adjust = Callable[[Float[Tensor, "B V"], list[list[int]], list[int]], Float[Tensor, "B V"]]
"""Logits changed before a token is picked; gets all tokens of each sequence, and how many of them are new."""


def decode(
    session: Session,
    prompts: Sequence[Int[Tensor, "T"]],
    pick: Pick,
    *,
    max_new_tokens: int,
    ends: Collection[int] = (),
    stop: Stop | None = None,
    adjust: Adjust | None = None,
    hear: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """New tokens of each sequence; one that ends with a token of ``ends`` has it as its last.

    Args:
        session: A fresh session.
        prompts: What each sequence begins with, at least one token; sorted by length they are read the fastest.
        pick: Chooses tokens.
        max_new_tokens: Most tokens to make, of each.
        ends: Tokens that end a sequence.
        stop: Further reason to end one.
        adjust: Changes logits first.
        hear: Called with the sequence's number and each new token, for streaming.
    """
    made: list[list[int]] = [[] for _ in prompts]
    if max_new_tokens < 1:
        return made
    alive = list(range(len(prompts)))
    logits = session.feed(prompts)
    while True:
        if adjust is not None:
            histories = [prompts[i].tolist() + made[i] for i in alive]
            logits = adjust(logits, histories, [len(made[i]) for i in alive])
        tokens = pick(logits, alive)
        going = []
        for row, (i, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
            made[i].append(token)
            if hear is not None:
                hear(i, token)
            ended = token in ends or len(made[i]) >= max_new_tokens or (stop is not None and stop(i, made[i]))
            if not ended:
                going.append(row)
        if not going:
            return made
        if len(going) < len(alive):
            rows = torch.tensor(going, device=tokens.device)
            session.select(rows)
            tokens, alive = tokens[rows], [alive[row] for row in going]
        logits = session.step(tokens)
