"""What BERT, RoBERTa and ELECTRA share: the keys of their encoders and the fields of config.json."""

from typing import Any, TypeVar

from tunesmith.base.config import Config, build
from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.models import Foreign
from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.feedforward.gelu import GELUConfig
from tunesmith.nn.feedforward.relu import ReLUConfig
from tunesmith.nn.feedforward.swish import SwishConfig
from tunesmith.nn.head._activation import Activation
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.nn.norm.layer_norm import LayerNormConfig
from tunesmith.nn.position.learned import LearnedConfig
from tunesmith.nn.transformer import TransformerConfig

C = TypeVar("C", bound=Config)
T = TypeVar("T")

KEYS = {
    "embeddings.tokens": "@embeddings.word_embeddings",
    "embeddings.segments": "@embeddings.token_type_embeddings",
    "embeddings.position": "@embeddings.position_embeddings",
    "embeddings.norm": "@embeddings.LayerNorm",
    "blocks.{i}.attention.query": "@encoder.layer.{i}.attention.self.query",
    "blocks.{i}.attention.key": "@encoder.layer.{i}.attention.self.key",
    "blocks.{i}.attention.value": "@encoder.layer.{i}.attention.self.value",
    "blocks.{i}.attention.output": "@encoder.layer.{i}.attention.output.dense",
    "blocks.{i}.attention_norm": "@encoder.layer.{i}.attention.output.LayerNorm",
    "blocks.{i}.feedforward.up": "@encoder.layer.{i}.intermediate.dense",
    "blocks.{i}.feedforward.down": "@encoder.layer.{i}.output.dense",
    "blocks.{i}.feedforward_norm": "@encoder.layer.{i}.output.LayerNorm",
}

_FEEDFORWARD: dict[str, FeedForwardConfig] = {
    "gelu": GELUConfig(),
    "gelu_new": GELUConfig(approximate="tanh"),
    "gelu_pytorch_tanh": GELUConfig(approximate="tanh"),
    "relu": ReLUConfig(),
    "silu": SwishConfig(),
    "swish": SwishConfig(),
}
_ACTIVATION: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "swish",
    "swish": "swish",
    "tanh": "tanh",
}
_FOREIGN = {
    "d_model": "hidden_size",
    "d_embedding": "embedding_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "initial_std": "initializer_range",
    "eps": "layer_norm_eps",
}
_PROBLEMS = {
    "regression": "regression",
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
}


def encoder_from_hf(config: Foreign, *, offset: int = 0) -> TransformerConfig:
    """Encoder settings from config.json.

    Args:
        config: The parsed file.
        offset: First row of the position table that a token can have.

    Raises:
        CheckpointError: A field is missing, has a wrong type, is out of range, or asks for what this family has not.
    """
    kind = config.get("position_embedding_type") or "absolute"
    if kind != "absolute":
        raise CheckpointError(f"config.json position_embedding_type: only absolute is supported, got {kind!r}")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise CheckpointError("config.json is_decoder: this family is loaded as an encoder only: set it to false")
    width, heads = need(config, "hidden_size"), need(config, "num_attention_heads")
    if width % heads:
        raise CheckpointError(f"config.json num_attention_heads: must divide hidden_size {width}, got {heads}")
    return _settings(
        TransformerConfig,
        {
            "vocab_size": need(config, "vocab_size"),
            "d_model": width,
            "d_embedding": config.get("embedding_size") or width,
            "num_layers": need(config, "num_hidden_layers"),
            "num_heads": heads,
            "d_ff": need(config, "intermediate_size"),
            "max_positions": need(config, "max_position_embeddings") - offset,
            "num_segments": config.get("type_vocab_size", 2),
            "dropout": config.get("hidden_dropout_prob", 0.1),
            "attention_dropout": config.get("attention_probs_dropout_prob", 0.1),
            "initial_std": config.get("initializer_range", 0.02),
            "position": LearnedConfig(offset=offset),
            "feedforward": _look_up(_FEEDFORWARD, config, "hidden_act"),
            "norm": _settings(LayerNormConfig, {"eps": config.get("layer_norm_eps", 1e-12)}),
        },
    )


def encoder_to_hf(config: TransformerConfig) -> dict[str, Any]:
    """Fields of config.json from the encoder settings."""
    assert isinstance(config.norm, LayerNormConfig)
    assert isinstance(config.position, LearnedConfig)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.d_ff,
        "hidden_act": next(name for name, choice in _FEEDFORWARD.items() if choice == config.feedforward),
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "max_position_embeddings": config.max_positions + config.position.offset,
        "type_vocab_size": config.num_segments,
        "initializer_range": config.initial_std,
        "layer_norm_eps": config.norm.eps,
    }


def classify_from_hf(config: Foreign, *, hidden: Activation, dropout_before_hidden: bool) -> ClassifyConfig:
    """Settings of a classification head; RoBERTa and ELECTRA drop before the hidden layer as well."""
    rate = classifier_dropout(config)
    count = num_labels(config)
    problem = config.get("problem_type")
    return _settings(
        ClassifyConfig,
        {
            "num_labels": count,
            "problem": _PROBLEMS.get(str(problem), "regression" if count == 1 else "single_label"),
            "hidden": hidden,
            "hidden_dropout": rate if dropout_before_hidden else 0.0,
            "dropout": rate,
        },
    )


def tag_from_hf(config: Foreign) -> TagConfig:
    """Settings of a tagging head."""
    return _settings(TagConfig, {"num_labels": num_labels(config), "dropout": classifier_dropout(config)})


def lm_from_hf(config: Foreign, *, activation: Activation | None = None) -> LMConfig:
    """Settings of a masked-language-model head."""
    return LMConfig(
        activation=_look_up(_ACTIVATION, config, "hidden_act") if activation is None else activation,
        table="tied" if config.get("tie_word_embeddings", True) else "own",
    )


def classifier_dropout(config: Foreign) -> object:
    """``classifier_dropout``, or the dropout of the hidden states where it is not set; the head checks it."""
    rate = config.get("classifier_dropout")
    return config.get("hidden_dropout_prob", 0.1) if rate is None else rate


def num_labels(config: Foreign) -> int:
    """Number of labels in config.json: of ``id2label``, or 2."""
    names = config.get("id2label")
    return len(names) if isinstance(names, dict) and names else need({"num_labels": 2, **config}, "num_labels")


def need(config: Foreign, name: str, *, least: int = 1) -> int:
    """A whole number that config.json must hold.

    Raises:
        CheckpointError: It is missing or no such number.
    """
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CheckpointError(f"config.json {name}: must be a whole number of at least {least}, got {value!r}")
    return value


def _settings(kind: type[C], fields: Foreign) -> C:
    """Settings from fields of config.json; a fault is told under its name there."""
    try:
        return build(kind, fields)
    except SettingError as error:
        ours, _, fault = str(error).partition(": ")
        raise CheckpointError(f"config.json {_FOREIGN.get(ours, ours)}: {fault}") from None


def _look_up(table: dict[str, T], config: Foreign, name: str) -> T:
    value = config.get(name, "gelu")
    if not isinstance(value, str) or value not in table:
        raise CheckpointError(f"config.json {name}: must be one of {', '.join(table)}, got {value!r}")
    return table[value]
