"""Text to token ids, by the ``tokenizers`` library, from tokenizer.json, vocab.txt, or vocab.json and merges.txt."""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer
from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import write_atomic

_FILES = (  # as they are written: a folder that has the last is whole
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
)


@dataclass(frozen=True)
class Encoded:
    """Token ids of many texts.

    Attributes:
        ids: Token ids of each text, special tokens included.
        segments: Segment of each token.
        words: For texts given as words: the word each token belongs to, None for special tokens.
        truncated: Which texts were too long and lost their end.
    """

    ids: list[list[int]]
    segments: list[list[int]]
    words: list[list[int | None]]
    truncated: list[bool]


@dataclass(frozen=True)
class Opening:
    """A text to go on from.

    Attributes:
        ids: Token ids, with the special tokens that stand before a text and without those behind it.
        ends: Where each token ends in the text, in characters; 0 for special tokens.
    """

    ids: list[int]
    ends: list[int]


class Tokenizer:
    """A tokenizer without padding or truncation of its own: both are settings of a pipeline, not of a model.

    Args:
        backend: The tokenizer of the ``tokenizers`` library.
        files: The files it came from, to be written back as they were.
    """

    def __init__(self, backend: Backend, files: dict[str, bytes]):
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.files = files

    @property
    def vocab_size(self) -> int:
        """One more than the highest token id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def pad_id(self) -> int | None:
        """Id of the padding token, as its files name it or as it is mostly called; None where there is none."""
        ids = (self.role_id("pad_token"), *(self.token_id(name) for name in ("<pad>", "[PAD]", "<|pad|>")))
        return next((i for i in ids if i is not None), None)

    def role_id(self, role: str) -> int | None:
        """Id of the token that its files name for a role, such as ``mask_token``; None where they name none."""
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            with contextlib.suppress(ValueError):
                tree = json.loads(self.files.get(file, b"{}"))
                token = tree.get(role) if isinstance(tree, dict) else None
                name = token.get("content") if isinstance(token, dict) else token
                found = self.token_id(name) if isinstance(name, str) else None
                if found is not None:
                    return found
        return None

    def special_tokens(self, *, pair: bool) -> int:
        """How many special tokens a text (or pair) is given."""
        return self.backend.num_special_tokens_to_add(pair)

    def encode(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        pairs: Sequence[str] | None = None,
        *,
        max_tokens: int | None,
    ) -> Encoded:
        """Encode texts, pairs of texts, or lists of words.

        Args:
            texts: Texts, or lists of words.
            pairs: Second texts.
            max_tokens: Longest result, in tokens; the longer text of a pair loses its end first. None: no limit.

        Raises:
            CheckpointError: The tokenizer has no token for a text, not even an unknown one.
        """
        as_words = bool(len(texts)) and not isinstance(texts[0], str)
        backend = self.backend
        if as_words and _needs_prefix_space(backend):
            backend = Backend.from_str(backend.to_str())
            backend.pre_tokenizer.add_prefix_space = True  # words of byte-level BPE begin with a space
        if max_tokens is not None:
            backend.enable_truncation(max_tokens, strategy="longest_first")
        try:
            items = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
            encodings = _encode(backend, items, as_words=as_words)
        finally:
            backend.no_truncation()
        return Encoded(
            ids=[encoding.ids for encoding in encodings],
            segments=[encoding.type_ids for encoding in encodings],
            words=[encoding.word_ids for encoding in encodings] if as_words else [],
            truncated=[bool(encoding.overflowing) for encoding in encodings],
        )

    def openings(self, texts: Sequence[str]) -> list[Opening]:
        """Texts to go on from.

        Raises:
            CheckpointError: The tokenizer has no token for a text, not even an unknown one.
        """
        found = []
        for encoding in _encode(self.backend, list(texts), as_words=False):
            special = encoding.special_tokens_mask
            begins = special.index(0) if 0 in special else min(1, len(special))  # of no text, one begins it
            size = max([begins, *(i + 1 for i, mark in enumerate(special) if not mark)])
            found.append(Opening(encoding.ids[:size], [end for _, end in encoding.offsets[:size]]))
        return found

    def plain(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts alone: nothing is put around them, and the name of a special token in them is plain text.

        Raises:
            CheckpointError: The tokenizer has no token for a text, not even an unknown one.
        """
        if isinstance(
            self.backend.model, tokenizers.models.Unigram
        ):  # it finds the names in its vocabulary all the same
            names = (token.content for token in self.backend.get_added_tokens_decoder().values() if token.special)
            named = re.compile("|".join(re.escape(name) for name in names if len(name) > 1) or "(?!)")
            texts = [named.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text) for text in texts]
        self.backend.encode_special_tokens = True
        try:
            with _own_errors():
                return [found.ids for found in self.backend.encode_batch_fast(texts, add_special_tokens=False)]
        finally:
            self.backend.encode_special_tokens = False

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def token_id(self, token: str) -> int | None:
        """Id of a token, None where there is none."""
        return self.backend.token_to_id(token)

    def fingerprint(self) -> str:
        """What the tokenizer is, as text."""
        return self.backend.to_str()

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder, as they were read, and a tokenizer.json in any case, last."""
        files = {"tokenizer.json": self.backend.to_str(pretty=True).encode(), **self.files}
        for name in _FILES:
            if name in files:
                write_atomic(folder / name, files[name])


def _encode(backend: Backend, items: list[Any], *, as_words: bool) -> list[tokenizers.Encoding]:
    with _own_errors():
        return backend.encode_batch(items, is_pretokenized=as_words)


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:  # the library's own errors are bare, all others are our mistakes
            raise
        raise CheckpointError(f"tokenizer: cannot encode these texts: {str(error).splitlines()[0]}") from None


def load_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder; None where it has none.

    Raises:
        CheckpointError: A tokenizer file is damaged.
    """
    try:
        files = {name: (folder / name).read_bytes() for name in _FILES if (folder / name).is_file()}
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot read: {error.strerror}") from None
    settings = _settings(folder, files)
    if "tokenizer.json" in files:
        try:
            return Tokenizer(Backend.from_str(files["tokenizer.json"].decode()), files)
        except Exception as error:  # the library raises bare Exceptions
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{folder / 'tokenizer.json'}: damaged: {reason}") from None
    try:
        if "vocab.txt" in files:
            return Tokenizer(_word_piece(folder / "vocab.txt", files["vocab.txt"], settings), files)
        if "vocab.json" in files and "merges.txt" in files:
            return Tokenizer(_byte_level(folder), files)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{folder}: its tokenizer files are damaged: {str(error).splitlines()[0]}") from None
    return None


def _settings(folder: Path, files: dict[str, bytes]) -> dict[str, object]:
    path = folder / "tokenizer_config.json"
    try:
        settings = json.loads(files.get(path.name, b"{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a JSON file: {error}") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, got {type(settings).__name__}")
    return settings


def _word_piece(path: Path, vocabulary: bytes, settings: dict[str, object]) -> Backend:
    try:
        words = vocabulary.decode("utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: not UTF-8 text") from None
    ids = {word.rstrip("\r"): i for i, word in enumerate(words)}
    for token in ("[UNK]", "[CLS]", "[SEP]"):
        if token not in ids:
            raise CheckpointError(f"{path}: holds no {token}: is it the vocabulary of a WordPiece tokenizer?")
    lower = bool(settings.get("do_lower_case", True))
    return BertWordPieceTokenizer(  # pyright: ignore[reportReturnType] (its inner tokenizer is the library's own class)
        vocab=ids,
        lowercase=lower,
        strip_accents=settings.get("strip_accents"),  # pyright: ignore[reportArgumentType]
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
    )._tokenizer


def _byte_level(folder: Path) -> Backend:
    base = ByteLevelBPETokenizer.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    backend = base._tokenizer
    begin, end = ((token, backend.token_to_id(token)) for token in ("<s>", "</s>"))
    if begin[1] is not None and end[1] is not None:
        backend.add_special_tokens([t for t in ("<s>", "<pad>", "</s>", "<unk>", "<mask>") if backend.token_to_id(t)])
        backend.post_processor = tokenizers.processors.RobertaProcessing(end, begin)  # keywords differ between versions
    return backend


def _needs_prefix_space(backend: Backend) -> bool:
    kind = backend.pre_tokenizer
    return isinstance(kind, tokenizers.pre_tokenizers.ByteLevel) and not kind.add_prefix_space
