"""Log-probabilities of given continuations; what several of them share is read once."""

from collections.abc import Sequence

import torch

from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.decoding.session import Session


def score(
    session: Session,
    prefixes: Sequence[Int[Tensor, "P"]],
    continuations: Sequence[Sequence[Int[Tensor, "T"]]],
) -> list[list[Float[Tensor, "T"]]]:
    """Log-probability of each token of each continuation, behind its prefix, in fp32 (or fp64).

    Args:
        session: A fresh session.
        prefixes: Tokens that all continuations of a text share, at least one; sorted by length they are read fastest.
        continuations: Those of each prefix, each at least one token.
    """
    last = torch.log_softmax(session.feed(prefixes), -1)
    owners = [i for i, tails in enumerate(continuations) for _ in tails]
    tails = [tail for some in continuations for tail in some]
    rows = torch.tensor(owners, device=last.device)
    parts = list(last[rows, torch.stack([tail[0] for tail in tails])][:, None])
    longer = [i for i, tail in enumerate(tails) if len(tail) > 1]
    if longer:
        session.select(rows[torch.tensor(longer, device=rows.device)])
        logits = session.feed_all([tails[i][:-1] for i in longer])
        targets = torch.cat([tails[i][1:] for i in longer])
        inner = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
        for i, rest in zip(longer, inner.split([len(tails[i]) - 1 for i in longer]), strict=True):
            parts[i] = torch.cat([parts[i], rest])
    scored: list[list[Tensor]] = [[] for _ in prefixes]
    for owner, part in zip(owners, parts, strict=True):
        scored[owner].append(part)
    return scored
