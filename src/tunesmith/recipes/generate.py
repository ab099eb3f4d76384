"""Generate texts: continuations of prompts, or what an encoder-decoder makes of its input."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pydantic
import torch

from tunesmith.base.config import Config, build
from tunesmith.base.errors import DataError, SettingError
from tunesmith.base.random import key
from tunesmith.models._generate import generate as generate_tokens
from tunesmith.models._generation_settings import Generation, settings_of
from tunesmith.models.model import Model
from tunesmith.recipes.load import load
from tunesmith.recipes.open import need_tokenizer, set_tokenizer
from tunesmith.recipes.settings import nested
from tunesmith.recipes.speaker import openings, with_lm_head
from tunesmith.recipes.writer import Writer
from tunesmith.text.batching import cut_by_tokens
from tunesmith.train.precision import Precision, choose_machine, frozen_in

AT_ONCE = 1024
"""Texts whose order may be changed, for batches of similar lengths; after so many the first results are given."""
_OF_SAMPLING = ("temperature", "top_k", "top_p", "seed")

Count = Annotated[int, pydantic.Field(ge=1)]


class MachineSettings(Config):
    """Where to compute."""

    device: str | None = pydantic.Field(default=None, description="cpu, cuda or cuda:N; CUDA if present.")
    precision: Precision = pydantic.Field(default="auto", description="bf16 where the machine is faster with it.")
    micro_batch_tokens: Count = pydantic.Field(default=16384, description="Tokens of a batch, new ones included.")


class GenerateSettings(Config):
    """How to generate; what is not set is the checkpoint's own (generation_config.json)."""

    max_new_tokens: Count | None = pydantic.Field(default=None, description="Most new tokens of each text.")
    do_sample: bool | None = pydantic.Field(default=None, description="Draw tokens instead of taking the likeliest.")
    temperature: Annotated[float, pydantic.Field(gt=0)] | None = pydantic.Field(
        default=None, description="Of sampling: logits are divided by it."
    )
    top_k: Annotated[int, pydantic.Field(ge=0)] | None = pydantic.Field(
        default=None, description="Of sampling: only so many of the likeliest tokens; 0 for all."
    )
    top_p: Annotated[float, pydantic.Field(gt=0, le=1)] | None = pydantic.Field(
        default=None, description="Of sampling: the likeliest tokens that have this probability together."
    )
    num_beams: Count | None = pydantic.Field(default=None, description="Beams of beam search; 1 for none.")
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = pydantic.Field(
        default=0, description="Seed of sampling; each text has a stream of its own."
    )
    stop: Annotated[
        tuple[Annotated[str, pydantic.Field(min_length=1)], ...],
        pydantic.BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    ] = pydantic.Field(default=(), description="Strings that end a text; it is cut before the first one.")
    tokenizer: str | None = pydantic.Field(default=None, description="Folder of a tokenizer; the model's by default.")
    train: MachineSettings = pydantic.Field(default_factory=MachineSettings, description="Where to compute.")


def generate(
    model: Model | str,
    texts: Sequence[str],
    *,
    settings: Mapping[str, Any] | None = None,
    hear: Callable[[str], None] | None = None,
    **fields: Any,
) -> list[str]:
    """New texts: what the model writes behind each one, or, of an encoder-decoder, in answer to it.

    Args:
        model: A model with an lm head and a tokenizer, or its name.
        texts: The prompts.
        settings: Dotted settings, such as ``{"train.device": "cpu"}``.
        hear: For one text, called with each new piece of it as it comes (not with beams).
        **fields: Fields of `GenerateSettings`.

    Raises:
        UserError: The model cannot generate, a setting is wrong, or a text does not fit the model.
    """
    resolved = build(GenerateSettings, nested({**fields, **(settings or {})}))
    names = [f"text {number}" for number in range(1, len(texts) + 1)]
    return list(generate_each(model, texts, resolved, names=names, hear=hear))


def generate_each(
    model: Model | str,
    texts: Sequence[str],
    settings: GenerateSettings,
    *,
    names: Sequence[str],
    hear: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """As `generate`, text by text, in order; everything is checked before the first one comes.

    Args:
        model: The model, or its name.
        texts: The prompts.
        settings: How.
        names: What to call each text in an error.
        hear: See `generate`.
    """
    here = str(model.device) if isinstance(model, Model) else None
    machine = choose_machine(settings.train.device or here, settings.train.precision)
    speaker = with_lm_head(load(model) if isinstance(model, str) else model).eval()
    if settings.tokenizer is not None:
        set_tokenizer(speaker, settings.tokenizer)
    how = _resolve(speaker, settings)
    prompts = [opening.ids for opening in openings(speaker, texts, names=names)]
    _check_room(speaker, prompts, how, names)
    speaker.to(machine.device)
    return _run(speaker, prompts, how, settings, machine.dtype, hear)


def _resolve(model: Model, settings: GenerateSettings) -> Generation:
    names = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "num_beams")
    given = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    own = model.generation or model.config.foreign
    if "max_new_tokens" not in given and model.encoder is None and own.get("max_new_tokens") is None:
        given["max_new_tokens"] = 20  # a max_length counts prompts, and those of a batch differ
    how = settings_of(model, {**given, "num_return_sequences": 1})
    idle = [name for name in _OF_SAMPLING if name in settings.model_fields_set]
    if idle and not how.do_sample:
        raise SettingError(f"{idle[0]}: has no effect without sampling: set do_sample=true as well")
    return how


def _check_room(model: Model, prompts: Sequence[Sequence[int]], how: Generation, names: Sequence[str]) -> None:
    longest = model.config.trunk.max_positions
    for name, prompt in zip(names, prompts, strict=True):
        size = 1 if model.encoder is not None else len(prompt)
        if size + how.max_new_tokens - 1 > longest:  # the last token made is not read
            raise DataError(
                f"{name}: its {size} tokens and max_new_tokens {how.max_new_tokens} are more than the model's "
                f"{longest} positions: set max_new_tokens to at most {longest - size + 1}"
            )


def _run(
    model: Model,
    prompts: Sequence[Sequence[int]],
    how: Generation,
    settings: GenerateSettings,
    dtype: torch.dtype,
    hear: Callable[[str], None] | None,
) -> Iterator[str]:
    trains = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        with frozen_in(torch.nn.ModuleList(model.stacks), dtype):
            for first in range(0, len(prompts), AT_ONCE):
                part = range(first, min(first + AT_ONCE, len(prompts)))
                yield from _texts(model, prompts, part, how, settings, dtype, hear)
    finally:
        for parameter, value in trains.items():
            parameter.requires_grad_(value)


def _texts(
    model: Model,
    prompts: Sequence[Sequence[int]],
    part: range,
    how: Generation,
    settings: GenerateSettings,
    dtype: torch.dtype,
    hear: Callable[[str], None] | None,
) -> list[str]:
    """Texts of some prompts, in batches of similar lengths."""
    tokenizer = need_tokenizer(model)
    found: dict[int, str] = {}
    sizes = np.array([(len(prompt) + how.max_new_tokens) * how.num_beams for prompt in prompts])
    for batch in cut_by_tokens(part, sizes, max_tokens=settings.train.micro_batch_tokens):
        starts = [list(prompts[i]) if model.encoder is None else [] for i in batch]
        writers = [Writer(tokenizer, start, how.ends, settings.stop, hear) for start in starts]
        seeds = tuple(key("generate", settings.seed, i) >> 1 for i in batch)
        made = generate_tokens(
            model,
            [torch.tensor(prompts[i], device=model.device) for i in batch],
            replace(how, seeds=seeds),
            stop=(lambda i, tokens, w=writers: w[i].stops(tokens)) if settings.stop and how.num_beams == 1 else None,
            hear=(lambda i, token, w=writers: w[i].hear(token)) if hear is not None and how.num_beams == 1 else None,
            dtype=dtype,
        )
        for i, writer, tokens in zip(batch, writers, made, strict=True):
            found[i] = writer.finish(tokens)
    return [found[i] for i in part]
