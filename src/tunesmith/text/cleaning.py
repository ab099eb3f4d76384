"""Which documents of a corpus are worth training on: filters that know no language, and duplicates.

Papers: the filters follow Scaling Language Models (Gopher, arXiv:2112.11446), table A1; near duplicates follow
Deduplicating Training Data Makes Language Models Better (arXiv:2107.06499), section 4.2.
"""

import functools
import hashlib
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from tunesmith.base.config import Config
from tunesmith.base.errors import DataError
from tunesmith.base.shapes import Bool, Shaped, UInt8
from tunesmith.text.corpus import Document
from tunesmith.text.minhash import near_duplicates, shingles_of, signature, words_of

_EXAMPLES = 3  # of each reason
_EXCERPT = 80  # characters of an example
_FEW_WORDS = 20  # shares of words say nothing about fewer
Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class CleaningSettings(Config):
    """What is dropped; shares are between 0 and 1, and of characters where nothing else is said, white space aside."""

    min_characters: int = pydantic.Field(
        default=100, ge=0, description="Fewest characters of a document; 0: no such limit."
    )
    min_letters: Share = pydantic.Field(default=0.6, description="Smallest share of letters; 0: no such limit.")
    max_digits: Share = pydantic.Field(default=0.25, description="Largest share of digits; 1: no such limit.")
    max_symbols: Share = pydantic.Field(
        default=0.1, description="Largest share of symbols such as # { | = @ \\; 1: no such limit."
    )
    max_repeated_lines: Share = pydantic.Field(
        default=0.3,
        description="Largest share of characters in lines that stood before in the document; 1: no limit.",
    )
    max_repeated_ngrams: Share = pydantic.Field(
        default=0.3,
        description="Largest share of five-word sequences that stood before in the document; 1: no limit.",
    )
    max_word_characters: int = pydantic.Field(
        default=40, ge=1, description="Longest word; more than a tenth of the text in longer ones drops the document."
    )
    min_mean_word: float = pydantic.Field(
        default=1.5, ge=0, description="Smallest mean length of words; 0: no such limit."
    )
    max_mean_word: float = pydantic.Field(default=15, ge=0, description="Largest mean length of words.")
    duplicates: Literal["keep", "exact", "near"] = pydantic.Field(
        default="near",
        description="Drop nothing, copies (case and white space aside), or also documents that are nearly so.",
    )
    similarity: float = pydantic.Field(
        default=0.8,
        gt=0,
        le=1,
        description="Jaccard similarity of five-word sequences from which on documents are nearly so.",
    )


_Signature = Shaped[np.ndarray, "K"]


@dataclass(frozen=True)
class Example:
    """A document that was dropped.

    Attributes:
        where: Where it stands.
        excerpt: How it begins.
        like: For duplicates, the number of the document that it resembles.
    """

    where: str
    excerpt: str
    like: int | None = None


@dataclass
class Dropped:
    """Documents that were dropped for one reason.

    Attributes:
        count: How many.
        examples: The first of them.
    """

    count: int = 0
    examples: list[Example] = field(default_factory=list)


def dropped_of(tree: Mapping[str, Any]) -> dict[str, Dropped]:
    """What ``Cleaned.tree`` gives as ``dropped``, read again."""
    return {
        reason: Dropped(found["count"], [Example(**example) for example in found["examples"]])
        for reason, found in tree.items()
    }


@dataclass(frozen=True)
class Cleaned:
    """What cleaning found.

    Attributes:
        keep: Which documents are kept, by number.
        dropped: Those that are not, by reason.
    """

    keep: Bool[np.ndarray, "D"]
    dropped: dict[str, Dropped]

    @property
    def num_kept(self) -> int:
        """Documents that are kept."""
        return int(self.keep.sum())

    def summary(self) -> str:
        """One line that says what happened."""
        reasons = ", ".join(f"{dropped.count} {reason}" for reason, dropped in self.dropped.items())
        return f"kept {self.num_kept} of {len(self.keep)} documents" + (f"; dropped: {reasons}" if reasons else "")

    def tree(self) -> dict[str, Any]:
        """What was dropped and why, as JSON holds it."""
        dropped = {reason: asdict(found) for reason, found in self.dropped.items()}
        return {"documents": len(self.keep), "kept": self.num_kept, "dropped": dropped}


def clean(corpus: Iterable[Document], settings: CleaningSettings) -> Cleaned:
    """Judge each document by itself, then against those before it. Memory holds 0.5 KiB for each document.

    The corpus is read once, and a second time as far as the examples of duplicates need.

    Raises:
        DataError: The corpus cannot be read, or nothing of it is kept.
    """
    dropped: dict[str, Dropped] = {}
    keep: list[bool] = []
    judged: list[int] = []  # documents that pass by themselves
    signatures: list[_Signature] = []
    seen: dict[bytes, int] = {}
    copies: list[tuple[str, int, int]] = []  # reason, document, and which one it is like
    for document in corpus:
        reason, shingles = _fault(document.text, settings)
        keep.append(reason is None)
        if reason is not None:
            _count(dropped, reason, document)
            continue
        if settings.duplicates == "keep":
            continue
        plain = " ".join(document.text.lower().split())
        first = seen.setdefault(hashlib.blake2b(plain.encode(), digest_size=16).digest(), document.number)
        if first != document.number:
            copies.append(("copies", document.number, first))
        elif settings.duplicates == "near":
            judged.append(document.number)
            signatures.append(signature(shingles))
    if signatures:
        near = near_duplicates(np.stack(signatures), similarity=settings.similarity)
        copies += [
            ("near copies", judged[int(i)], judged[int(j)]) for i, j in zip(near.documents, near.earlier, strict=True)
        ]
    for _, number, _ in copies:
        keep[number] = False
    _describe(corpus, copies, dropped)
    if not any(keep):
        reasons = ", ".join(f"{found.count} {reason}" for reason, found in dropped.items())
        raise DataError(f"data.cleaning: drops every document ({reasons}): loosen its limits, or leave it out")
    return Cleaned(np.array(keep, dtype=bool), dropped)


def _count(dropped: dict[str, Dropped], reason: str, document: Document, like: int | None = None) -> None:
    found = dropped.setdefault(reason, Dropped())
    found.count += 1
    if len(found.examples) < _EXAMPLES:
        excerpt = " ".join(document.text[: 2 * _EXCERPT].split())[:_EXCERPT]
        found.examples.append(Example(_writable(document.where), _writable(excerpt), like))


def _writable(text: str) -> str:
    """Paths and texts may hold lone surrogates, which no UTF-8 file can."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _describe(corpus: Iterable[Document], copies: Sequence[tuple[str, int, int]], dropped: dict[str, Dropped]) -> None:
    """Count duplicates, and read the first of them again for the examples."""
    wanted: dict[int, tuple[str, int]] = {}
    for reason, number, like in copies:
        found = dropped.setdefault(reason, Dropped())
        found.count += 1
        if sum(name == reason for name, _ in wanted.values()) < _EXAMPLES:
            wanted[number] = (reason, like)
    if not wanted:
        return
    last = max(wanted)
    for document in corpus:
        if document.number in wanted:
            reason, like = wanted[document.number]
            _count(dropped, reason, document, like)
            dropped[reason].count -= 1  # it was counted above
        if document.number == last:
            return


def _fault(text: str, settings: CleaningSettings) -> tuple[str | None, Shaped[np.ndarray, "N"]]:
    """Why a document is dropped by itself, or None; and its shingles."""
    none = np.zeros(0, np.uint64)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    letters, digits, symbols, spaces, _ = np.bincount(_kinds()[codes], minlength=5)
    size = len(codes) - int(spaces)
    if size < max(settings.min_characters, 1):
        return "too short", none
    if letters < settings.min_letters * size:
        return "few letters", none
    if digits > settings.max_digits * size:
        return "many digits", none
    if symbols > settings.max_symbols * size:
        return "many symbols", none
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
    if repeated > settings.max_repeated_lines * sum(map(len, lines)):
        return "repeated lines", none
    words = words_of(text)
    lengths = np.array([len(word) for word in words if len(word) > 1 or word.isascii()], dtype=np.int64)
    if lengths[lengths > settings.max_word_characters].sum() > 0.1 * size:
        return "overlong words", none
    if len(lengths) >= _FEW_WORDS and not settings.min_mean_word <= lengths.mean() <= settings.max_mean_word:
        return "unusual word lengths", none
    shingles = shingles_of(words)
    if len(shingles) >= _FEW_WORDS:
        again = len(shingles) - len(np.unique(shingles))
        if again > settings.max_repeated_ngrams * len(shingles):
            return "repeated word sequences", none
    return None, shingles


@functools.cache
def _kinds() -> UInt8[np.ndarray, "N"]:
    """Of each code point: 0 letter or mark, 1 digit, 2 symbol, 3 white space or control, 4 punctuation and others."""
    kinds = {"L": 0, "M": 0, "N": 1, "S": 2, "Z": 3, "C": 3}
    found = np.array([kinds.get(unicodedata.category(chr(i))[0], 4) for i in range(sys.maxunicode + 1)], np.uint8)
    found[[ord(c) for c in "#*@\\/_{}[]&%"]] = 2
    return found
