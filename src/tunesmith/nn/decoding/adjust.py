"""Changes of logits before a token is picked: fewest tokens, repetition, forced tokens, as in transformers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from tunesmith.base.shapes import Float, Tensor

NEVER = float("-inf")


@dataclass(frozen=True)
class Adjustments:
    """All of them, in transformers' order; the defaults change nothing.

    Attributes:
        ends: Tokens that end a sequence.
        min_new_tokens: No end before so many new tokens.
        repetition_penalty: Positive logits of seen tokens are divided by it, negative ones multiplied
            (CTRL, arXiv:1909.05858, section 4.1).
        no_repeat_ngram_size: No sequence of so many tokens twice; 0 for no such rule.
        forced_first: The second token of a sequence must be this: the first new one of an encoder-decoder.
        forced_last: The last possible token must be one of these.
        max_new_tokens: Where the last possible token is.
    """

    ends: Collection[int] = ()
    min_new_tokens: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    forced_first: int | None = None
    forced_last: Collection[int] = ()
    max_new_tokens: int = 0

    @property
    def needed(self) -> bool:
        """Whether anything is changed."""
        forced = self.forced_first is not None or bool(self.forced_last)
        return forced or self.min_new_tokens > 0 or self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0

    def __call__(
        self, logits: Float[Tensor, "B V"], histories: Sequence[list[int]], counts: Sequence[int]
    ) -> Float[Tensor, "B V"]:
        """Changed logits.

        Args:
            logits: Logits or log-probabilities.
            histories: All tokens of each sequence, its prompt included.
            counts: How many of them are new.
        """
        logits = logits.clone()
        for row, (history, count) in enumerate(zip(histories, counts, strict=True)):
            if self.repetition_penalty != 1:
                seen = torch.tensor(sorted(set(history)), device=logits.device)
                values = logits[row, seen]
                scaled = torch.where(values < 0, values * self.repetition_penalty, values / self.repetition_penalty)
                logits[row, seen] = scaled
            banned = _repeats(history, self.no_repeat_ngram_size)
            if count < self.min_new_tokens:
                banned |= set(self.ends)
            if banned:
                logits[row, torch.tensor(sorted(banned), device=logits.device)] = NEVER
            forced = [self.forced_first] if self.forced_first is not None and len(history) == 1 else []
            forced = list(self.forced_last) if self.forced_last and count == self.max_new_tokens - 1 else forced
            if forced:
                logits[row] = NEVER
                logits[row, forced] = 0.0
        return logits


def _repeats(history: list[int], size: int) -> set[int]:
    """Tokens that would end a sequence of ``size`` tokens that has been there before."""
    if size < 1 or len(history) < size - 1:
        return set()
    tail = history[len(history) - size + 1 :]
    starts = range(len(history) - size + 1)
    return {history[i + size - 1] for i in starts if history[i : i + size - 1] == tail}
