"""Beam search: the likeliest sequences by sum of log-probabilities over a power of their length.

Paper: Google's Neural Machine Translation System (arXiv:1609.08144), section 7, in transformers' form: an ended
sequence counts only if it was among the best ``num_beams`` of its step, and by default a text is done once no running
beam, at its present length, is better than the worst ended one.
"""

from collections.abc import Collection, Sequence
from typing import Literal

import torch

from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.decoding.loop import Adjust
from tunesmith.nn.decoding.session import Session

WORST = -1.0e9


def beam_search(
    session: Session,
    prompts: Sequence[Int[Tensor, "T"]],
    *,
    num_beams: int,
    max_new_tokens: int,
    ends: Collection[int] = (),
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    num_return: int = 1,
    adjust: Adjust | None = None,
) -> list[list[list[int]]]:
    """The best new tokens of each prompt, best first.

    Args:
        session: A fresh session.
        prompts: What each text begins with.
        num_beams: Sequences that are followed for each text.
        max_new_tokens: Most tokens to make, of each.
        ends: Tokens that end a sequence.
        length_penalty: Power of the length that sums are divided by.
        early_stopping: True: done when num_beams have ended; False: when, at its present length, no running beam is
            better; "never": when none can become better.
        num_return: How many to give of each text, at most num_beams.
        adjust: Changes log-probabilities first.
    """
    device = prompts[0].device
    logits = session.feed(prompts)
    beams = torch.arange(len(prompts), device=device).repeat_interleave(num_beams)
    session.select(beams)
    state = _State(len(prompts), num_beams, max_new_tokens, length_penalty, early_stopping, device)
    logits = logits[beams]
    end_ids = torch.tensor(sorted(ends), dtype=torch.long, device=device)
    for _ in range(max_new_tokens):
        log_probs = torch.log_softmax(logits, -1)
        if adjust is not None:
            made = state.made()
            histories = [prompts[i // num_beams].tolist() + tokens for i, tokens in enumerate(made)]
            log_probs = adjust(log_probs, histories, [len(tokens) for tokens in made])
        rows, tokens = state.advance(log_probs, end_ids)
        if state.done():
            break
        session.select(rows)
        logits = session.step(tokens)
    return state.best(num_return)


class _State:
    """Running beams and the best ended sequences of all texts."""

    def __init__(
        self,
        size: int,
        num_beams: int,
        longest: int,
        length_penalty: float,
        early_stopping: bool | str,
        device: torch.device,
    ):
        self.num_beams, self.longest = num_beams, longest
        self.length_penalty, self.early_stopping = length_penalty, early_stopping
        self.length = 0
        self.running = torch.zeros(size, num_beams, longest, dtype=torch.long, device=device)
        self.scores = torch.zeros(size, num_beams, device=device)
        self.scores[:, 1:] = WORST  # at first all beams are the same
        self.ended = torch.zeros_like(self.running)
        self.ended_lengths = torch.zeros(size, num_beams, dtype=torch.long, device=device)
        self.ended_scores = torch.full((size, num_beams), WORST, device=device)
        self.is_ended = torch.zeros(size, num_beams, dtype=torch.bool, device=device)
        self.open = torch.ones(size, 1, dtype=torch.bool, device=device)
        self.all_hit = False

    def made(self) -> list[list[int]]:
        """Tokens of each running beam."""
        return self.running[:, :, : self.length].flatten(0, 1).tolist()

    def advance(self, log_probs: Float[Tensor, "C V"], ends: Int[Tensor, "E"]) -> tuple[Tensor, Tensor]:
        """Go on by one token; gives the beam that each new beam comes from, and its token."""
        size, width = len(self.scores), log_probs.shape[-1]
        sums = (log_probs.view(size, self.num_beams, width).to(self.scores.dtype) + self.scores[..., None]).flatten(1)
        best, where = sums.topk(max(2, 1 + len(ends)) * self.num_beams)  # enough of them that go on
        source, tokens = where // width, where % width
        candidates = self.running.gather(1, source[..., None].expand(-1, -1, self.longest)).clone()
        candidates[:, :, self.length] = tokens
        hit = torch.isin(tokens, ends) | (self.length + 1 >= self.longest)
        self.all_hit = bool(hit.all())
        going = (best + hit * WORST).topk(self.num_beams)
        self.running = candidates.gather(1, going.indices[..., None].expand(-1, -1, self.longest))
        self.scores = going.values
        self._keep(best, candidates, hit)
        self.length += 1
        self._close()
        first = torch.arange(size, device=where.device)[:, None] * self.num_beams
        rows = (first + source.gather(1, going.indices)).flatten()
        return rows, tokens.gather(1, going.indices).flatten()

    def _keep(self, best: Tensor, candidates: Tensor, hit: Tensor) -> None:
        """The best of what had ended before and what ends now among the first ``num_beams`` candidates."""
        now = hit.clone()
        now[:, self.num_beams :] = False
        score = best / (self.length + 1) ** self.length_penalty
        full = self.is_ended.all(1, keepdim=True) & (self.early_stopping is True)
        score = score + full * WORST + ~self.open * WORST + ~now * WORST
        top = torch.cat([self.ended_scores, score], 1).topk(self.num_beams)
        picked = top.indices[..., None].expand(-1, -1, self.longest)
        self.ended = torch.cat([self.ended, candidates], 1).gather(1, picked)
        lengths = torch.full_like(hit, self.length + 1, dtype=torch.long)
        self.ended_lengths = torch.cat([self.ended_lengths, lengths], 1).gather(1, top.indices)
        self.ended_scores = top.values
        self.is_ended = torch.cat([self.is_ended, now], 1).gather(1, top.indices)

    def _close(self) -> None:
        """Close the texts that no running beam can better."""
        longest = self.early_stopping == "never" and self.length_penalty > 0
        reached = self.longest if longest else self.length
        possible = self.scores[:, :1] / reached**self.length_penalty
        worst = torch.where(self.is_ended, self.ended_scores.min(1, keepdim=True).values, WORST)
        self.open &= (possible > worst).any(1, keepdim=True)

    def done(self) -> bool:
        """Whether nothing can change any more."""
        full = self.early_stopping is True and bool(self.is_ended.all())
        return self.all_hit or full or not bool(self.open.any())

    def best(self, count: int) -> list[list[list[int]]]:
        """The best ended sequences of each text."""
        lengths = self.ended_lengths.tolist()
        return [
            [self.ended[text, beam, : lengths[text][beam]].tolist() for beam in range(count)]
            for text in range(len(lengths))
        ]
