"""Score texts: how likely a model finds each of several continuations of a prefix."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunesmith.base.errors import DataError
from tunesmith.models._generate import score_tokens
from tunesmith.models._generation_settings import begin_of
from tunesmith.models.model import Model
from tunesmith.recipes.open import need_tokenizer
from tunesmith.recipes.speaker import openings, with_lm_head


@dataclass(frozen=True)
class Score:
    """What a model thinks of a continuation.

    Attributes:
        log_prob: Natural logarithm of its probability behind the prefix.
        token_ids: Its tokens.
        token_log_probs: Those of each of them; log_prob is their sum.
    """

    log_prob: float
    token_ids: tuple[int, ...]
    token_log_probs: tuple[float, ...]


@dataclass(frozen=True)
class _Part:
    """One continuation in tokens, and where its score goes."""

    prefix: tuple[int, ...]
    tokens: tuple[int, ...]
    place: tuple[int, int]


def score(model: Model, items: Sequence[tuple[str, Sequence[str]]], *, max_tokens: int = 8192) -> list[list[Score]]:
    """Scores of texts behind their prefixes; a prefix is read once for all continuations that leave its tokens alone.

    Prefix and continuation are tokenised together, as the model would see them in a text. The continuation's tokens
    begin with the first one that reaches past the end of the prefix: one that spans the join belongs to it. An
    encoder-decoder's encoder reads the prefix, and its decoder is asked for the continuation with its special tokens,
    so its end too.

    Args:
        model: A model with an lm head and a tokenizer.
        items: Prefixes, each with its continuations.
        max_tokens: Tokens of a batch, at most; each continuation counts with its prefix.

    Raises:
        CheckpointError: The model cannot score.
        DataError: A text is empty or too long.
    """
    model = with_lm_head(model).eval()
    parts = _joined(model, items) if model.encoder is None else _apart(model, items)
    found: list[list[Score | None]] = [[None] * len(continuations) for _, continuations in items]
    for batch in _batches(parts, max_tokens):
        groups: dict[tuple[int, ...], list[_Part]] = {}
        for part in batch:
            groups.setdefault(part.prefix, []).append(part)
        prefixes = [torch.tensor(prefix, device=model.device) for prefix in groups]
        tails = [[torch.tensor(part.tokens, device=model.device) for part in group] for group in groups.values()]
        scored = score_tokens(model, prefixes, tails, dtype=model.compute_dtype)
        for group, results in zip(groups.values(), scored, strict=True):
            for part, values in zip(group, results, strict=True):
                item, number = part.place
                found[item][number] = Score(float(values.double().sum()), part.tokens, tuple(values.tolist()))
    return [[one for one in row if one is not None] for row in found]


def _joined(model: Model, items: Sequence[tuple[str, Sequence[str]]]) -> list[_Part]:
    """Prefix and continuation as one text of a decoder."""
    texts, places, names = [], [], []
    for item, (prefix, continuations) in enumerate(items):
        for number, continuation in enumerate(continuations):
            texts.append(prefix + continuation)
            places.append((item, number))
            names.append(_name(item, number))
    begin = begin_of(model)
    parts = []
    for opening, place, name in zip(openings(model, texts, names=names), places, names, strict=True):
        border = len(items[place[0]][0])
        first = next((i for i, end in enumerate(opening.ends) if end > border), None)
        if first is None:
            raise DataError(f"{name}: has no token of its own behind the prefix: give some text")
        prefix = tuple(opening.ids[:first]) or (() if begin is None else (begin,))
        if not prefix:
            raise DataError(
                f"{name}: nothing stands before it, and this model has no token to begin with: give a prefix"
            )
        parts.append(_Part(prefix, tuple(opening.ids[first:]), place))
    return parts


def _apart(model: Model, items: Sequence[tuple[str, Sequence[str]]]) -> list[_Part]:
    """Prefixes for the encoder, continuations for the decoder."""
    names = [f"item {item + 1}" for item in range(len(items))]
    prefixes = [tuple(opening.ids) for opening in openings(model, [prefix for prefix, _ in items], names=names)]
    tokenizer, longest = need_tokenizer(model), model.config.trunk.max_positions
    parts = []
    for item, (_, continuations) in enumerate(items):
        encoded = tokenizer.encode(list(continuations), max_tokens=None).ids if len(continuations) else []
        for number, ids in enumerate(encoded):
            if not ids or len(ids) > longest:
                raise DataError(f"{_name(item, number)}: has {len(ids)} tokens, must have 1..{longest}")
            parts.append(_Part(prefixes[item], tuple(ids), (item, number)))
    return parts


def _name(item: int, number: int) -> str:
    return f"item {item + 1} continuation {number + 1}"


def _batches(parts: list[_Part], max_tokens: int) -> list[list[_Part]]:
    """Parts with the same prefix side by side, cut by tokens."""
    batches: list[list[_Part]] = []
    filled = max_tokens + 1
    for part in sorted(parts, key=lambda part: (len(part.prefix), part.prefix, len(part.tokens))):
        size = len(part.prefix) + len(part.tokens)
        if filled + size > max_tokens:
            batches.append([])
            filled = 0
        batches[-1].append(part)
        filled += size
    return batches
