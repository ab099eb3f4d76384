"""From tokens to text while they come: new text only, cut before a stop string, never in the middle of a character."""

from collections.abc import Callable, Collection, Sequence

from tunesmith.text.tokenizer import Tokenizer

_HALF = "\ufffd"
"""What a decoder writes for a character whose last bytes have not come yet."""


class Writer:
    """Text of one sequence.

    Args:
        tokenizer: The tokenizer.
        start: Tokens that stand before the new ones: some tokenizers write a token's space only behind another one.
        ends: Tokens that end a sequence and are no text.
        stop: Strings that end the text.
        say: Called with each new piece of text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        start: Sequence[int],
        ends: Collection[int],
        stop: Sequence[str],
        say: Callable[[str], None] | None,
    ):
        self.tokenizer, self.start, self.ends, self.stop, self.say = tokenizer, list(start), ends, stop, say
        self.before = tokenizer.decode(self.start)
        self.tokens: list[int] = []
        self.said = 0
        self.tail = max((len(word.encode()) for word in stop), default=0) + 4  # a token is at least one byte

    def stops(self, tokens: Sequence[int]) -> bool:
        """Whether a stop string stands at the end of these tokens."""
        text = self.tokenizer.decode(tokens[-self.tail :])
        return any(word in text for word in self.stop) and self._cut(self.text(tokens)) is not None

    def hear(self, token: int) -> None:
        """One more token: say what is certain now."""
        self.tokens.append(token)
        text = self.text(self.tokens)
        cut = self._cut(text)
        if cut is None:
            text = text.rstrip(_HALF)
            held = max((self._beginning(text, word) for word in self.stop), default=0)
            cut = len(text) - held
        self._say(text[:cut])

    def finish(self, tokens: Sequence[int]) -> str:
        """The whole text; what has not been said yet is said."""
        text = self.text(tokens)
        text = text[: self._cut(text)]
        self._say(text)
        return text

    def text(self, tokens: Sequence[int]) -> str:
        """The text of new tokens."""
        tokens = list(tokens)
        if tokens and tokens[-1] in self.ends:
            tokens.pop()
        whole = self.tokenizer.decode([*self.start, *tokens])
        return whole.removeprefix(self.before) if whole.startswith(self.before) else self.tokenizer.decode(tokens)

    def _say(self, text: str) -> None:
        if self.say is not None and len(text) > self.said:
            self.say(text[self.said :])
            self.said = len(text)

    def _cut(self, text: str) -> int | None:
        """Where the first stop string begins; None where there is none."""
        return min((place for place in map(text.find, self.stop) if place >= 0), default=None)

    @staticmethod
    def _beginning(text: str, word: str) -> int:
        """Characters at the end of a text with which the stop string may begin."""
        return next((size for size in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:size])), 0)
