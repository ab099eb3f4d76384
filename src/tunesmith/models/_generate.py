"""Text generation by a model, with transformers' arguments and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from tunesmith.base.errors import SettingError
from tunesmith.base.layout import make_layout
from tunesmith.base.shapes import Int, Tensor
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


@dataclass(frozen=True)
class Generation:
    """How tokens are made; names and defaults are those of transformers.

    Attributes:
        max_new_tokens: Most new tokens of each sequence.
        min_new_tokens: Fewest.
        do_sample: Draw tokens instead of taking the likeliest.
        temperature: Of sampling.
        top_k: Of sampling; 0 for all tokens.
        top_p: Of sampling.
        num_beams: Beams of beam search; 1 for none.
        num_return_sequences: Sequences for each prompt: beams, or samples.
        length_penalty: Of beam search.
        early_stopping: Of beam search.
        repetition_penalty: See `Adjustments`.
        no_repeat_ngram_size: See `Adjustments`.
        ends: Tokens that end a sequence.
        start: First token of an encoder-decoder's decoder.
        forced_first: See `Adjustments`.
        forced_last: See `Adjustments`.
        seeds: Seed of each sequence that is sampled.
    """

    max_new_tokens: int = 20
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    ends: tuple[int, ...] = ()
    start: int | None = None
    forced_first: int | None = None
    forced_last: int | None = None
    seeds: tuple[int, ...] = ()

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            SettingError: The line names the field.
        """
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "min_new_tokens": (0 <= self.min_new_tokens <= self.max_new_tokens, "in 0..max_new_tokens"),
            "temperature": (self.temperature > 0, "above 0"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "num_beams": (self.num_beams >= 1, "at least 1"),
            "num_return_sequences": (self.num_return_sequences >= 1, "at least 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "at least 0"),
        }
        for name, (fine, wanted) in rules.items():
            if not fine:
                raise SettingError(f"{name}: must be {wanted}, got {getattr(self, name)}")
        if self.num_beams > 1 and self.do_sample:
            raise SettingError("num_beams: beam search cannot be combined with do_sample: set one of them")
        if not self.do_sample and self.num_return_sequences > self.num_beams:
            raise SettingError(f"num_return_sequences: must be at most num_beams, got {self.num_return_sequences}")


def settings_of(model: "Model", given: Mapping[str, Any]) -> Generation:
    """The given settings, and for the rest the checkpoint's own (generation_config.json, or config.json).

    Raises:
        SettingError: Unknown setting, or a value that makes no sense.
    """
    own = {**model.config.foreign, **model.generation}
    fields: dict[str, Any] = {}
    for name in ("temperature", "top_k", "top_p", "num_beams", "length_penalty", "early_stopping", "do_sample"):
        if model.generation.get(name) is not None:
            fields[name] = model.generation[name]
    for name in ("repetition_penalty", "no_repeat_ngram_size", "min_new_tokens", "max_new_tokens"):
        if model.generation.get(name) is not None:
            fields[name] = model.generation[name]
    names = {"eos_token_id": "ends", "decoder_start_token_id": "start", "forced_bos_token_id": "forced_first"}
    names |= {"forced_eos_token_id": "forced_last"}
    for foreign, ours in names.items():
        if own.get(foreign) is not None:
            fields[ours] = own[foreign]
    for name, value in given.items():
        ours = names.get(name, name)
        if ours not in Generation.__dataclass_fields__:
            raise SettingError(f"{name}: there is no such setting of generate")
        fields[ours] = value
    ends = fields.get("ends", ())
    fields["ends"] = (ends,) if isinstance(ends, int) else tuple(ends or ())
    if model.encoder is not None and fields.get("start") is None:
        fields["start"] = own.get("bos_token_id", own.get("pad_token_id", 0))
    found = Generation(**fields)
    found.check()
    return found


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
    prompts, session = _ready(model, [documents[i] for i in order], settings, dtype)
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
    prompts, session = _ready(model, [prefixes[i] for i in order], settings_of(model, {}), dtype)
    found = score(session, prompts, [continuations[i] for i in order])
    return [found[i] for i in _inverse(order)]


def _inverse(order: list[int]) -> list[int]:
    """Where each one went."""
    return sorted(range(len(order)), key=order.__getitem__)


def _ready(
    model: "Model", documents: Sequence[Tensor], settings: Generation, dtype: torch.dtype | None
) -> tuple[Sequence[Tensor], Session]:
    """What the decoder begins with, and a session for it."""
    decoder, head = model.decoder, model.head
    if decoder is None or not isinstance(head, LM):
        raise ValueError(f"model: this {model.config.family} cannot generate: it needs a decoder and an lm head")
    if model.encoder is None:
        room = max(len(document) for document in documents) + settings.max_new_tokens
        return documents, Session(decoder, head, room=room, dtype=dtype)
    layout = make_layout([len(document) for document in documents], device=model.device)
    hidden = model.encoder(torch.cat(list(documents)), layout, dtype=dtype)
    session = Session(decoder, head, room=settings.max_new_tokens + 1, memory=(hidden, layout), dtype=dtype)
    return [torch.tensor([settings.start], device=model.device)] * len(documents), session
