"""Tokenised documents: one long row of token ids, with where sentences and documents begin."""

from collections.abc import Sequence

import numpy as np

from tunesmith.base.shapes import Int


class Tokens:
    """Documents made of sentences made of token ids, without special tokens.

    Attributes:
        sentences: First token of each sentence, and the number of tokens; (S + 1,).
        documents: First sentence of each document, and the number of sentences; (D + 1,).
        num_bytes: UTF-8 bytes of the text, for bits per byte.
    """

    sentences: Int[np.ndarray, "S"]
    documents: Int[np.ndarray, "D"]
    num_bytes: int

    def __init__(self, documents: Sequence[Sequence[Sequence[int]]], *, num_bytes: int = 0):
        lengths = [len(sentence) for document in documents for sentence in document]
        self.sentences = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        counts = [len(document) for document in documents]
        self.documents = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self.num_bytes = num_bytes
        flat = (i for document in documents for sentence in document for i in sentence)
        self._ids = np.fromiter(flat, np.int64, self.num_tokens)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.sentences[-1])

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.documents) - 1

    @property
    def document_starts(self) -> Int[np.ndarray, "D"]:
        """First token of each document, and the number of tokens; (D + 1,)."""
        return self.sentences[self.documents]

    def take(self, start: int, stop: int) -> Int[np.ndarray, "T"]:
        """Token ids from one place to another, int64."""
        return self._ids[start:stop]
