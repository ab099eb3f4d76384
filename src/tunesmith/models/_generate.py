"""Text generation by a model, with transformers' arguments and results."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from tunesmith.base.errors import SettingError
from tunesmith.base.layout import make_layout
from tunesmith.base.shapes import Int, Tensor
from tunesmith.models._generation_settings import Generation, start_of
from tunesmith.nn.decoding.adjust import Adjustments
from tunesmith.nn.decoding.beam import beam_search
from tunesmith.nn.decoding.greedy import greedy
from tunesmith.nn.decoding.loop import Stop, decode
from tunesmith.nn.decoding.sample import Sampler
from tunesmith.nn.decoding.score import score
from tunesmith.nn.decoding.session import Session
from tunesmith.nn.head.lm import LM

if TYPE_CHECKING:
    from tunesmith.models.model import Model


@torch.no_grad()
def generate(
    model: "Model",
    documents: Sequence[Int[Tensor, "T"]],
    settings: Generation,
    *,
    stop: Stop | None = None,
    hear: Callable[[int, int], None] | None = None,
    dtype: torch.dtype | None = None,
) -> list[list[int]]:
    """New tokens for each document; with several sequences for each, those of the first document come first.

    Args:
        model: A decoder with a language-model head, or an encoder-decoder.
        documents: Prompts, or what the encoder reads.
        settings: How.
        stop: Further reason to end a sequence (not with beams).
        hear: Called with the number of the sequence and each new token (not with beams).
        dtype: Type to compute in; that of the weights by default.

    Raises:
        ValueError: The model cannot generate.
    """
    times = settings.num_return_sequences
    if settings.num_beams == 1 and times > 1:
        documents = [document for document in documents for _ in range(times)]
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))  # few attention groups
    start, room = settings.start, settings.max_new_tokens
    prompts, session = _ready(model, [documents[i] for i in order], start, room, dtype)
    adjust = Adjustments(
        ends=settings.ends,
        min_new_tokens=settings.min_new_tokens,
        repetition_penalty=settings.repetition_penalty,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        forced_first=settings.forced_first,
        forced_last=settings.forced_last,
        max_new_tokens=settings.max_new_tokens,
    )
    changed = adjust if adjust.needed else None
    if settings.num_beams > 1:
        found = beam_search(
            session,
            prompts,
            num_beams=settings.num_beams,
            max_new_tokens=settings.max_new_tokens,
            ends=settings.ends,
            length_penalty=settings.length_penalty,
            early_stopping=settings.early_stopping,
            num_return=times,
            adjust=changed,
        )
        return [sequence for i in _inverse(order) for sequence in found[i]]
    pick = greedy
    if settings.do_sample:
        seeds = settings.seeds or range(len(order))
        if len(seeds) != len(order):
            raise SettingError(f"seeds: must be one for each of {len(order)} sequences, got {len(seeds)}")
        seeds = [seeds[i] for i in order]
        pick = Sampler(seeds, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)
    made = decode(
        session,
        prompts,
        pick,
        max_new_tokens=settings.max_new_tokens,
        ends=settings.ends,
        stop=None if stop is None else lambda i, tokens: stop(order[i], tokens),
        adjust=changed,
        hear=None if hear is None else lambda i, token: hear(order[i], token),
    )
    return [made[i] for i in _inverse(order)]


@torch.no_grad()
def score_tokens(
    model: "Model",
    prefixes: Sequence[Int[Tensor, "P"]],
    continuations: Sequence[Sequence[Int[Tensor, "T"]]],
    *,
    dtype: torch.dtype | None = None,
) -> list[list[Tensor]]:
    """Log-probability of each token of each continuation behind its prefix (encoder-decoders: the encoder reads it).

    Raises:
        ValueError: The model cannot generate.
    """
    order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]))
    room = max(len(tail) for tails in continuations for tail in tails)
    prompts, session = _ready(model, [prefixes[i] for i in order], start_of(model), room, dtype)
    found = score(session, prompts, [continuations[i] for i in order])
    return [found[i] for i in _inverse(order)]


def _inverse(order: list[int]) -> list[int]:
    """Where each one went."""
    return sorted(range(len(order)), key=order.__getitem__)


def _ready(
    model: "Model", documents: Sequence[Tensor], start: int | None, room: int, dtype: torch.dtype | None
) -> tuple[Sequence[Tensor], Session]:
    """What the decoder begins with, and a session for it."""
    decoder, head = model.decoder, model.head
    if decoder is None or not isinstance(head, LM):
        raise ValueError(f"model: this {model.config.family} cannot generate: it needs a decoder and an lm head")
    if model.encoder is None:
        room += max(len(document) for document in documents)
        return documents, Session(decoder, head, room=room, dtype=dtype)
    layout = make_layout([len(document) for document in documents], device=model.device)
    hidden = model.encoder(torch.cat(list(documents)), layout, dtype=dtype)
    session = Session(decoder, head, room=room + 1, memory=(hidden, layout), dtype=dtype)
    return [torch.tensor([start], device=model.device)] * len(documents), session
