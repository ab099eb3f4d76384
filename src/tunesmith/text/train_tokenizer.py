"""Train a tokenizer on a corpus, by the ``tokenizers`` library: the same text gives the same bytes.

The library alone gives others each time, because it goes through its words in a random order: WordPiece breaks ties by
it, and Unigram sums and numbers by it. WordPiece is therefore told its alphabet in a fixed order, and Unigram's
scores are rounded and put in order. (Unigram could in theory still differ, where a sum lies within rounding errors of a
limit; it was never seen to.)
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pydantic
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from tunesmith.base.config import Config
from tunesmith.base.errors import DataError, SettingError
from tunesmith.text.corpus import Document
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.text.tokenizer_style import STYLES, Style

_COVERAGE = 0.9998  # share of the characters that the alphabet of WordPiece and Unigram covers
_SCORE_DIGITS = 4
_PENALTY = 1e-4  # the library gives characters that it must keep scores in such steps
_CONTINUES = re.compile(r"""(?<=[^\s!-/:-@\[-`{-~])[^\s!-/:-@\[-`{-~]""")


class TokenizerSettings(Config):
    """How a tokenizer is trained."""

    kind: Literal["wordpiece", "bpe", "unigram"] = pydantic.Field(
        default="wordpiece", description="WordPiece (BERT's), byte-level BPE (GPT-2's), or Unigram (T5's)."
    )
    style: Literal["bert", "roberta", "gpt2", "t5", "xlnet", "llama"] = pydantic.Field(
        default="bert", description="Whose special tokens there are, and where they stand around texts."
    )
    vocab_size: int = pydantic.Field(
        default=30_000,
        ge=16,
        le=2**24,
        description="Number of tokens, special ones included; fewer where the text is small.",
    )
    lowercase: bool = pydantic.Field(default=False, description="Make letters small; accents stay in any case.")
    min_frequency: int = pydantic.Field(
        default=2, ge=1, description="Occurrences from which on two tokens are joined; not for Unigram."
    )
    max_characters: int = pydantic.Field(
        default=100_000_000, ge=1, description="Characters of the corpus to train on, from its beginning."
    )


@dataclass(frozen=True)
class TrainedTokenizer:
    """A tokenizer and what it was trained on.

    Attributes:
        tokenizer: The tokenizer.
        num_documents: Documents that it saw.
        num_characters: Their characters.
        complete: Whether these are the whole corpus.
    """

    tokenizer: Tokenizer
    num_documents: int
    num_characters: int
    complete: bool

    def summary(self) -> str:
        """One line that says what happened."""
        part = "the whole corpus" if self.complete else "the beginning of the corpus"
        return (
            f"trained a tokenizer of {self.tokenizer.vocab_size} tokens on {part}: "
            f"{self.num_characters} characters of {self.num_documents} documents"
        )


def train_tokenizer(
    corpus: Iterable[Document], settings: TokenizerSettings, *, max_tokens: int | None = None
) -> TrainedTokenizer:
    """Train a tokenizer; the corpus is read twice.

    Args:
        corpus: Its documents.
        settings: What to train.
        max_tokens: Longest input of the model, for transformers' ``model_max_length``.

    Raises:
        SettingError: Kind and style do not go together, or the vocabulary is too small for them.
        DataError: The corpus has no word.
    """
    style = STYLES[settings.style]
    if settings.kind != "bpe" and style.unknown is None:
        raise SettingError(
            f"vocabulary.style: {settings.style} has no unknown token, which {settings.kind} needs: "
            "set vocabulary.kind=bpe"
        )
    source = _Source(corpus, settings.max_characters)
    room = settings.vocab_size - len(style.special) - style.num_sentinels
    least = 256 if settings.kind == "bpe" else 4
    if room < least:
        raise SettingError(
            f"vocabulary.vocab_size: must be at least {settings.vocab_size - room + least} for {settings.kind} with "
            f"the special tokens of {settings.style}, got {settings.vocab_size}"
        )
    trained = {"wordpiece": _word_piece, "bpe": _bpe, "unigram": _unigram}[settings.kind](source, settings, style, room)
    backend = _dress(trained, style)
    tokenizer = Tokenizer(backend, {"tokenizer_config.json": _config(style, max_tokens)})
    return TrainedTokenizer(tokenizer, source.num_documents, source.num_characters, source.complete)


class _Source:
    """The lines of a corpus up to a number of characters, again and again."""

    def __init__(self, corpus: Iterable[Document], max_characters: int):
        self.corpus = corpus
        self.max_characters = max_characters
        self.num_documents = self.num_characters = 0
        self.complete = False

    def __iter__(self) -> Iterator[str]:
        self.num_documents = self.num_characters = 0
        self.complete = False
        for document in self.corpus:
            left = self.max_characters - self.num_characters
            if not left:
                return
            self.num_documents += 1
            self.num_characters += min(left, len(document.text))
            yield from document.text[:left].splitlines()
            if left < len(document.text):
                return
        self.complete = True


def _word_piece(source: _Source, settings: TokenizerSettings, style: Style, room: int) -> Backend:
    backend = Backend(models.WordPiece(unk_token=style.unknown))
    backend.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=settings.lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts, inner = _counted(source, backend.normalizer)
    alphabet = _alphabet(counts, room // 3)
    within = [f"##{c}" for c in alphabet if c in inner]  # all: a missing one is numbered by chance
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocab_size - style.num_sentinels,
        min_frequency=settings.min_frequency,
        show_progress=False,
        special_tokens=[*style.special, *within],  # so that they have numbers of their own
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    backend.train_from_iterator(_covered(source, backend.normalizer, alphabet), trainer)
    vocabulary = {piece: i for piece, i in backend.get_vocab().items() if i < settings.vocab_size}
    fresh = Backend(models.WordPiece(vocabulary, unk_token=style.unknown, max_input_chars_per_word=100))
    fresh.normalizer, fresh.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    fresh.decoder = decoders.WordPiece("##", cleanup=True)
    return fresh


def _bpe(source: _Source, settings: TokenizerSettings, style: Style, room: int) -> Backend:
    backend = Backend(models.BPE())
    if settings.lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size - style.num_sentinels,
        min_frequency=settings.min_frequency,
        show_progress=False,
        special_tokens=list(style.special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    backend.train_from_iterator(source, trainer)
    return backend


def _unigram(source: _Source, settings: TokenizerSettings, style: Style, room: int) -> Backend:
    assert style.unknown is not None
    backend = Backend(models.Unigram())
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if settings.lowercase else [])]
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always")]
    )
    counts, _ = _counted(source, backend.normalizer)
    alphabet = _alphabet(counts, room // 2)
    trainer = trainers.UnigramTrainer(
        vocab_size=settings.vocab_size - style.num_sentinels,
        show_progress=False,
        special_tokens=list(style.special),
        unk_token=style.unknown,
    )
    backend.train_from_iterator(_covered(source, backend.normalizer, alphabet), trainer)
    pieces = json.loads(backend.to_str())["model"]["vocab"]
    ordered = [*((name, 0.0) for name in style.special), *_in_order([p for p in pieces if p[0] not in style.special])]
    fresh = Backend(models.Unigram(ordered, unk_id=style.special.index(style.unknown), byte_fallback=False))
    fresh.normalizer, fresh.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    fresh.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    return fresh


def _in_order(pieces: list[Any]) -> list[tuple[str, float]]:
    """Pieces with rounded scores, best first; the steps that the library gave by chance are given in order."""
    lowest = min(score for _, score in pieces)
    chance = {
        piece: score
        for piece, score in pieces
        if len(piece) == 1 and abs((steps := (score - lowest) / _PENALTY) - round(steps)) < 1e-6 * max(1, steps)
    }
    given = dict(zip(sorted(chance), sorted(chance.values()), strict=True))
    rounded = [(piece, round(given.get(piece, score), _SCORE_DIGITS)) for piece, score in pieces]
    return sorted(rounded, key=lambda pair: (-pair[1], pair[0]))


def _counted(source: _Source, normalizer: Any) -> tuple[Counter[str], Counter[str]]:
    """How often each character stands in the text, and how often behind another character of a word."""
    counts: Counter[str] = Counter()
    inner: Counter[str] = Counter()
    for line in source:
        text = normalizer.normalize_str(line)
        counts.update(text)
        inner.update(_CONTINUES.findall(text))
    for c in [c for c in counts if c.isspace()]:
        del counts[c]
    if not counts:
        raise DataError("data: the corpus has no word to train a tokenizer on: give more text")
    return counts, inner


def _alphabet(counts: Counter[str], limit: int) -> list[str]:
    """The most frequent characters, as many as cover the text or fit, in order."""
    wanted = counts.total() * _COVERAGE
    kept: list[str] = []
    covered = 0
    for c, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted or len(kept) == max(limit, 1):
            break
        kept.append(c)
        covered += count
    return sorted(kept)


def _covered(source: _Source, normalizer: Any, alphabet: list[str]) -> Iterator[str]:
    """The text with white space in place of characters that are not in the alphabet."""
    rare = re.compile(f"[^\\s{re.escape(''.join(alphabet))}]")
    for line in source:
        yield rare.sub(" ", normalizer.normalize_str(line))


def _dress(backend: Backend, style: Style) -> Backend:
    """Special tokens, sentinels and templates."""
    tokens = [AddedToken(name, special=True, normalized=False, lstrip=name == "<mask>") for name in style.special]
    backend.add_special_tokens(tokens)
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(style.num_sentinels))]  # the first has the highest id
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in sentinels])
    if style.single is not None and style.pair is not None:
        named = [(name, backend.token_to_id(name)) for name in style.special]
        template = processors.TemplateProcessing(single=style.single, pair=style.pair, special_tokens=named)
        backend.post_processor = template
    else:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def _config(style: Style, max_tokens: int | None) -> bytes:
    """What transformers reads beside tokenizer.json."""
    longest = {} if max_tokens is None else {"model_max_length": max_tokens}
    more = {"additional_special_tokens": list(style.additional)} if style.additional else {}
    tree = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **style.roles,
        **more,
        **longest,
        "model_input_names": ["input_ids", *(["token_type_ids"] if style.segments else []), "attention_mask"],
        "padding_side": style.padding_side,
        "clean_up_tokenization_spaces": False,
    }
    return (json.dumps(tree, indent=2, ensure_ascii=False) + "\n").encode()
