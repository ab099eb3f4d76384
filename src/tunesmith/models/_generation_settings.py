"""How a model makes tokens: the settings given, and those of its checkpoint, under transformers' names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.base.errors import SettingError

if TYPE_CHECKING:
    from tunesmith.models.model import Model

_TOKENS = {
    "eos_token_id": "ends",
    "decoder_start_token_id": "start",
    "forced_bos_token_id": "forced_first",
    "forced_eos_token_id": "forced_last",
}
_PLAIN = (
    "do_sample temperature top_k top_p num_beams num_return_sequences length_penalty early_stopping "
    "repetition_penalty no_repeat_ngram_size min_new_tokens max_new_tokens"
).split()
_LENGTHS = ("min_length", "max_length")
_NEUTRAL: dict[str, Any] = {  # what changes the tokens of transformers and not ours, with its neutral value
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "renormalize_logits": False,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "watermarking_config": None,
}
_NEUTRAL_IN_SAMPLING: dict[str, Any] = {
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "min_p": 0.0,
    "top_h": None,
    "typical_p": 1.0,
}


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
    forced_last: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            SettingError: The line names the field.
        """
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "min_new_tokens": (0 <= self.min_new_tokens <= self.max_new_tokens, f"in 0..{self.max_new_tokens}"),
            "temperature": (self.temperature > 0, "above 0"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "num_beams": (self.num_beams >= 1, "at least 1"),
            "num_return_sequences": (self.num_return_sequences >= 1, "at least 1"),
            "early_stopping": (self.early_stopping in (True, False, "never"), "true, false or never"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "at least 0"),
        }
        for name, (fine, wanted) in rules.items():
            if not fine:
                raise SettingError(f"{name}: must be {wanted}, got {getattr(self, name)!r}")
        if self.num_beams > 1 and self.do_sample:
            raise SettingError("num_beams: beam search cannot be combined with do_sample: set one of them")
        if not self.do_sample and self.num_return_sequences > self.num_beams:
            raise SettingError(f"num_return_sequences: must be at most num_beams, got {self.num_return_sequences}")


def settings_of(model: "Model", given: Mapping[str, Any], *, prompt: int = 1) -> Generation:
    """The given settings, and for the rest the checkpoint's own.

    Those are in generation_config.json, or, where there is none, in config.json, as transformers has it.

    Args:
        model: The model.
        given: Settings by our names or transformers'; None is as if it were not given, but for eos_token_id.
        prompt: Tokens of the prompt (1 for an encoder-decoder), which min_length and max_length count.

    Raises:
        SettingError: Unknown setting, a value that makes no sense, or one of the checkpoint's that we have not.
    """
    own = _own(model)
    fields: dict[str, Any] = {}
    for name in (*_PLAIN, *_LENGTHS, *_TOKENS):
        if own.get(name) is not None:
            fields[_TOKENS.get(name, name)] = own[name]
    for name, value in given.items():
        ours = _TOKENS.get(name, name)
        if ours not in Generation.__dataclass_fields__ and name not in _LENGTHS:
            raise SettingError(f"{name}: there is no such setting of generate")
        if value is not None:
            fields[ours] = value
        elif ours in ("ends", "forced_first", "forced_last"):
            fields.pop(ours, None)
    longest, shortest = fields.pop("max_length", None), fields.pop("min_length", None)
    if "max_new_tokens" not in fields:
        if longest is not None and longest <= prompt:
            raise SettingError(f"max_length: must be more than the {prompt} tokens of the prompt, got {longest}")
        free = model.config.trunk.max_positions - prompt
        fields["max_new_tokens"] = max(1, min(20, free)) if longest is None else longest - prompt
    if "min_new_tokens" not in fields and shortest is not None:
        fields["min_new_tokens"] = max(0, shortest - prompt)
    if not {"min_new_tokens", "max_new_tokens"} <= given.keys():  # a checkpoint's fewest gives way to a given most
        fields["min_new_tokens"] = min(fields.get("min_new_tokens", 0), fields["max_new_tokens"])
    for name in ("ends", "forced_last", "seeds"):
        value = fields.get(name, ())
        fields[name] = (value,) if isinstance(value, int) else tuple(value)
    if model.encoder is not None and "start" not in fields:
        fields["start"] = start_of(model)
    found = Generation(**fields)
    found.check()
    for name, neutral in {**_NEUTRAL, **(_NEUTRAL_IN_SAMPLING if found.do_sample else {})}.items():
        if own.get(name) not in (None, neutral):
            raise SettingError(
                f"generation_config.json {name}: is not supported, got {own[name]!r}: take it out to generate without"
            )
    return found


def start_of(model: "Model") -> int | None:
    """The token that the decoder of an encoder-decoder begins with."""
    own = _own(model)
    names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
    return next((own[name] for name in names if own.get(name) is not None), 0)


def begin_of(model: "Model") -> int | None:
    """The token that a decoder's text begins with where it has none of its own; None where there is none."""
    names = ("bos_token_id", "eos_token_id")
    found = next(
        (own[name] for own in (_own(model), model.config.foreign) for name in names if own.get(name) is not None), None
    )
    return found if found is None or isinstance(found, int) else found[0]


def padding_of(model: "Model", settings: Generation) -> int:
    """What stands behind shorter sequences in a tensor of several.

    Behind beams that is an end where padding is token 0: transformers takes 0 for "no padding" there, as of T5.
    """
    pad = _own(model).get("pad_token_id")
    if pad is None or (pad == 0 and settings.num_beams > 1):
        return settings.ends[0] if settings.ends else 0
    return pad


def _own(model: "Model") -> Mapping[str, Any]:
    return model.generation or model.config.foreign
