"""How documents become sequences: one file each.

Paper: RoBERTa (arXiv:1907.11692), section 4.2 and table 2, compares four of them.
"""

import abc
from collections.abc import Callable
from typing import Literal

import numpy as np

from tunesmith.base.choices import Choice
from tunesmith.base.shapes import Int
from tunesmith.text.sample import Frame, Sample
from tunesmith.text.tokens import Tokens


class Samples:
    """The sequences of one epoch; any of them can be had at once.

    Args:
        lengths: Tokens of each sample, special ones included: what batches are grouped by.
        make: Makes the sample of a number.
    """

    def __init__(self, lengths: Int[np.ndarray, "N"], make: Callable[[int], Sample]):
        self.lengths = lengths
        self._make = make

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> Sample:
        return self._make(i)


class InputConfig(Choice, abc.ABC):
    """Settings of an input format."""

    @property
    def num_texts(self) -> Literal[1, 2]:
        """Texts of a sequence: two where each is a pair."""
        return 1

    @property
    def second_texts(self) -> Literal["none", "random", "swapped"]:
        """How half of the pairs get another second text; none where no pair has a label."""
        return "none"

    @abc.abstractmethod
    def samples(
        self, tokens: Tokens, frame: Frame, *, max_tokens: int, stream: Callable[..., np.random.Generator]
    ) -> Samples:
        """The sequences of one epoch.

        Args:
            tokens: The documents.
            frame: Special tokens around texts.
            max_tokens: Longest sequence, in tokens, special ones included.
            stream: Random stream keyed by seed and epoch and by what is given to it: ``stream("order")``,
                ``stream("sample", 7)``. A sample that is made twice must come out the same.

        Raises:
            SettingError: So few tokens leave no room beside the special ones.
        """
