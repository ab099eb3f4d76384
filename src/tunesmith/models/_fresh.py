"""A model with fresh weights: a preset, with other sizes or parts where they are wanted."""

from collections.abc import Mapping
from typing import Any

from tunesmith.base import choices
from tunesmith.base.config import build
from tunesmith.base.errors import SettingError
from tunesmith.models import Family
from tunesmith.models._checkpoint import config_from_hf
from tunesmith.models._expressible import fault_of_stacks
from tunesmith.models.model import Model, ModelConfig
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.init import init_normal
from tunesmith.nn.transformer import TransformerConfig
from tunesmith.text.sample import Vocabulary


def fresh_model(
    preset: str, *, changes: Mapping[str, Any], vocabulary: Vocabulary, seed: int
) -> tuple[Model, str | None]:
    """A preset's model for a vocabulary, and why transformers could not load it; None where it can.

    Args:
        preset: Name of the preset.
        changes: Fields of `TransformerConfig` that differ; in encoder and decoder alike.
        vocabulary: What the tokenizer knows.
        seed: Seed of the weights.

    Raises:
        SettingError: No such preset, or the parts do not go together.
    """
    table = _family_of(preset)
    foreign = {**table.presets[preset], "model_type": table.name, "architectures": [table.bare]}
    ids = {"pad_token_id": vocabulary.pad, "bos_token_id": vocabulary.begin, "eos_token_id": vocabulary.end}
    foreign |= {name: i for name, i in ids.items() if i is not None}
    start = {"t5": vocabulary.pad, "bart": vocabulary.end}.get(table.name)
    if start is not None:
        foreign["decoder_start_token_id"] = start
    foreign["vocab_size"] = vocabulary.size
    config = config_from_hf(foreign, source=preset)
    encoder, decoder = (changed_stack(stack, changes) for stack in (config.encoder, config.decoder))
    changed = ModelConfig(family=config.family, encoder=encoder, decoder=decoder, foreign=config.foreign)
    fault = fault_of_stacks(table, changed.stacks, changed.foreign)
    if fault is None and changes.get("initial_std") is None:
        changed = _usual_std(changed, table, foreign)
    stds = table.fresh_stds(changed.stacks)
    if fault is not None:
        kept: dict[str, Any] = {key: value for key, value in foreign.items() if key.endswith("_token_id")}
        kept["like"] = preset
        changed = ModelConfig(family="custom", encoder=encoder, decoder=decoder, foreign=kept)
    model = Model(changed)
    model.source = preset
    init_normal(model, std=model.config.trunk.initial_std, seed=seed, name="model", stds=stds)
    return model, fault


def usual_head(model: Model, name: str) -> HeadConfig | None:
    """The head that a model's family has for a task; a custom model is asked for its preset's.

    Args:
        model: The model.
        name: Name of the head, such as ``lm``.

    Returns:
        Its settings; None where the family has none.
    """
    config = model.config
    if config.family != "custom":
        table, fields = model.family, {**config.foreign, **model.family.to_hf(config.stacks)}
    elif "like" in config.foreign:
        table = _family_of(config.foreign["like"])
        fields = {**table.presets[config.foreign["like"]], "d_model": config.trunk.d_model}  # T5's factor follows it
    else:
        return None
    return table.heads[name].from_hf(fields) if name in table.heads else None


def _usual_std(config: ModelConfig, table: Family, foreign: Mapping[str, Any]) -> ModelConfig:
    """The spread of fresh weights that the family has at these widths (T5's follows them)."""
    sizes = {key: value for key, value in table.to_hf(config.stacks).items() if not key.startswith("init")}
    again = table.from_hf({**foreign, **sizes})
    update = {}
    for name in ("encoder", "decoder"):
        ours, usual = getattr(config, name), getattr(again, name)
        if ours is not None and usual is not None:
            update[name] = ours.model_copy(update={"initial_std": usual.initial_std})
    return config.model_copy(update=update)


def _family_of(preset: str) -> Family:
    known: list[str] = []
    for name in choices.names("model"):
        table: Family = choices.module("model", name).FAMILY
        if preset in table.presets:
            return table
        known += table.presets
    raise SettingError(f"model.preset: there is no preset {preset!r}: choose from {', '.join(known)}")


def changed_stack(stack: TransformerConfig | None, changes: Mapping[str, Any]) -> TransformerConfig | None:
    """A stack with other settings; what followed from those that change follows from the new ones."""
    if stack is None:
        return None
    given = {key: value for key, value in changes.items() if value is not None}
    fields: dict[str, Any] = {name: getattr(stack, name) for name in TransformerConfig.model_fields}
    if "d_model" in given and stack.d_embedding == stack.d_model:
        fields["d_embedding"] = given["d_model"]
    if {"d_model", "num_heads"} & set(given):
        fields["d_head"] = None
        if "num_kv_heads" not in given:
            fields["num_kv_heads"] = None
    if "dropout" in given:
        other = ("embedding_dropout", "attention_dropout", "feedforward_dropout", "final_dropout")
        fields |= {name: given["dropout"] for name in other if fields[name] == stack.dropout != 0}
        if getattr(stack.position, "dropout", 0) == stack.dropout != 0:
            fields["position"] = stack.position.model_copy(update={"dropout": given["dropout"]})
    if "num_layers" in given and stack.num_stored is not None and given["num_layers"] % stack.num_stored:
        fields["num_stored"] = None
    try:
        return build(TransformerConfig, fields | given)
    except SettingError as error:
        raise SettingError(f"model.{error}") from None
