"""ModernBERT: pre-norm, rotary positions with two bases, local attention in most layers, GEGLU.

Paper: Smarter, Better, Faster, Longer (arXiv:2412.13663).
Differs: transformers drops the attention's output at ``attention_dropout`` in training, here nothing is dropped there;
released models have 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Foreign, Fused, HeadTable, Stacks
from tunesmith.models._activations import ACTIVATION, GATED, name_of
from tunesmith.models._encoder import classify_from_hf, lm_from_hf, tag_from_hf
from tunesmith.models._fields import look_up, need, settings
from tunesmith.nn.head.choice import ChoiceConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.span import SpanConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.nn.norm.layer_norm import LayerNormConfig
from tunesmith.nn.position.rope import RoPEConfig
from tunesmith.nn.transformer import LayerConfig, TransformerConfig

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_THETA = {_GLOBAL: ("global_rope_theta", 160_000.0), _LOCAL: ("local_rope_theta", 10_000.0)}
_POOLINGS = {"cls": "first", "mean": "mean"}
_FOREIGN = {
    "d_model": "hidden_size",
    "d_ff": "intermediate_size",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
    "attention_dropout": "attention_dropout",
    "feedforward_dropout": "mlp_dropout",
    "embedding_dropout": "embedding_dropout",
    "initial_std": "initializer_range",
    "eps": "norm_eps",
}
_SIZES = {
    "vocab_size": 50368,
    "pad_token_id": 50283,
    "max_position_embeddings": 8192,
    "bos_token_id": 50281,
    "eos_token_id": 50282,
    "cls_token_id": 50281,
    "sep_token_id": 50282,
}


def _kinds(config: Foreign, num_layers: int) -> list[str]:
    """Which layers see everything, and which a window."""
    given = config.get("layer_types")
    if given is None:
        every = need({"global_attn_every_n_layers": 3, **config}, "global_attn_every_n_layers")
        return [_LOCAL if i % every else _GLOBAL for i in range(num_layers)]
    if not isinstance(given, list) or len(given) != num_layers or not set(given) <= {_GLOBAL, _LOCAL}:
        raise CheckpointError(
            f"config.json layer_types: must be {num_layers} times {_GLOBAL} or {_LOCAL}, got {str(given)[:80]}"
        )
    return given


def _position(config: Foreign, kind: str) -> RoPEConfig:
    old, theta = _THETA[kind]
    parameters = _table(_table(config, "rope_parameters"), kind)
    scaling = _table(config, "rope_scaling")
    found = parameters.get("rope_type", scaling.get("rope_type", scaling.get("type", "default")))
    if found != "default":
        raise CheckpointError(f"config.json rope_parameters: only rope_type default is supported, got {found!r}")
    theta = parameters.get("rope_theta", config.get(old, theta))
    return settings(RoPEConfig, {"theta": theta}, names={"theta": f"rope_parameters {kind} rope_theta"})


def _table(config: Foreign, name: str) -> Foreign:
    found = config.get(name) or {}
    if not isinstance(found, Mapping):
        raise CheckpointError(f"config.json rope_parameters: {name} must be a table, got {found!r}")
    return found


def _from_hf(config: Foreign) -> Stacks:
    width, heads = need(config, "hidden_size"), need(config, "num_attention_heads")
    if width % heads or width // heads % 2:
        raise CheckpointError(f"config.json num_attention_heads: heads of {width} / {heads} must have an even width")
    num_layers = need(config, "num_hidden_layers")
    kinds = _kinds(config, num_layers)
    period = next(p for p in range(1, num_layers + 1) if all(kinds[i] == kinds[i % p] for i in range(num_layers)))
    window = need({"local_attention": 128, **config}, "local_attention") // 2
    local = LayerConfig(window=window, position=_position(config, _LOCAL))
    encoder = settings(
        TransformerConfig,
        {
            "vocab_size": need(config, "vocab_size"),
            "d_model": width,
            "d_embedding": width,
            "num_layers": num_layers,
            "num_heads": heads,
            "d_ff": need(config, "intermediate_size"),
            "max_positions": need(config, "max_position_embeddings"),
            "num_segments": 0,
            "order": "pre",
            "biases": "all" if config.get("attention_bias") else "none",
            "feedforward_bias": bool(config.get("mlp_bias")),
            "first_norm": False,
            "dropout": 0.0,
            "embedding_dropout": config.get("embedding_dropout", 0.0),
            "attention_dropout": config.get("attention_dropout", 0.0),
            "feedforward_dropout": config.get("mlp_dropout", 0.0),
            "initial_std": config.get("initializer_range", 0.02),
            "position": _position(config, _GLOBAL),
            "feedforward": look_up(GATED, config, "hidden_activation"),
            "norm": settings(
                LayerNormConfig,
                {"eps": config.get("norm_eps", 1e-5), "bias": bool(config.get("norm_bias"))},
                names=_FOREIGN,
            ),
            "layers": tuple(local if kind == _LOCAL else LayerConfig() for kind in kinds[:period]),
        },
        names=_FOREIGN,
    )
    return Stacks(encoder)


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    config = stacks.encoder
    assert config is not None
    assert isinstance(config.norm, LayerNormConfig)
    assert isinstance(config.position, RoPEConfig)
    locals_ = [layer for layer in config.layers if layer.window is not None]
    kinds = [_GLOBAL if layer.window is None else _LOCAL for layer in config.layers]
    theta = {_GLOBAL: config.position.theta}
    fields: dict[str, Any] = {}
    if locals_:
        position = locals_[0].position or config.position
        assert isinstance(position, RoPEConfig)
        theta[_LOCAL] = position.theta
        fields["local_attention"] = 2 * (locals_[0].window or 0)
    return fields | {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.d_ff,
        "hidden_activation": name_of(config.feedforward, GATED),
        "max_position_embeddings": config.max_positions,
        "layer_types": [kinds[i % len(kinds)] for i in range(config.num_layers)],
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in theta.items()},
        "attention_bias": config.biases == "all",
        "mlp_bias": config.feedforward_bias,
        "norm_bias": config.norm.bias,
        "norm_eps": config.norm.eps,
        "embedding_dropout": config.dropout if config.embedding_dropout is None else config.embedding_dropout,
        "attention_dropout": config.attention_dropout,
        "mlp_dropout": config.feedforward_dropout,
        "initializer_range": config.initial_std,
    }


def _hidden(config: Foreign) -> dict[str, Any]:
    """The layer before the output that all heads have."""
    return {
        "hidden": look_up(ACTIVATION, config, "classifier_activation"),
        "hidden_bias": bool(config.get("classifier_bias")),
        "dropout": config.get("classifier_dropout", 0.0),
    }


def _pooled(config: Foreign) -> dict[str, Any]:
    return {
        **_hidden(config),
        "hidden_norm": True,
        "pooling": look_up(_POOLINGS, {"classifier_pooling": "cls", **config}, "classifier_pooling"),
    }


def _classify(config: Foreign) -> ClassifyConfig:
    plain = classify_from_hf({**config, "classifier_dropout": 0.0}, hidden="gelu", dropout_before_hidden=False)
    return settings(ClassifyConfig, {**dict(plain), **_pooled(config)})


def _tag(config: Foreign) -> TagConfig:
    return settings(TagConfig, {**dict(tag_from_hf({**config, "classifier_dropout": 0.0})), **_hidden(config)})


def _lm(config: Foreign) -> LMConfig:
    plain = lm_from_hf(config, activation=look_up(ACTIVATION, config, "classifier_activation"))
    more = {"dense_bias": bool(config.get("classifier_bias")), "bias": bool(config.get("decoder_bias", True))}
    return plain.model_copy(update=more)


def _apart(count: int) -> dict[str, Any]:
    """A matrix whose parts lie one below the other."""

    def split(tensor: Tensor, config: TransformerConfig) -> Sequence[Tensor]:
        if len(tensor) % count:
            raise ValueError(f"{len(tensor)} rows are not {count} equal parts")
        return tensor.chunk(count)

    def join(parts: Sequence[Tensor], config: TransformerConfig) -> Tensor:
        return torch.cat(list(parts))

    return {"split": split, "join": join}


_LAYER = "@layers.{i}."
_HEAD = {"dense": "head.dense", "norm": "head.norm", "output": "classifier"}
_TOKEN_HEAD = {"hidden.dense": "head.dense", "hidden.norm": "head.norm", "output": "classifier"}

FAMILY = Family(
    name="modernbert",
    prefix="model",
    keys={
        "encoder.embeddings.tokens": "@embeddings.tok_embeddings",
        "encoder.embeddings.norm": "@embeddings.norm",
        "encoder.blocks.{i}.attention.query": _LAYER + "attn.Wqkv#query",
        "encoder.blocks.{i}.attention.key": _LAYER + "attn.Wqkv#key",
        "encoder.blocks.{i}.attention.value": _LAYER + "attn.Wqkv#value",
        "encoder.blocks.{i}.attention.output": _LAYER + "attn.Wo",
        "encoder.blocks.{i}.attention_norm": _LAYER + "attn_norm",
        "encoder.blocks.{i}.feedforward.gate": _LAYER + "mlp.Wi#gate",
        "encoder.blocks.{i}.feedforward.up": _LAYER + "mlp.Wi#up",
        "encoder.blocks.{i}.feedforward.down": _LAYER + "mlp.Wo",
        "encoder.blocks.{i}.feedforward_norm": _LAYER + "mlp_norm",
        "encoder.norm": "@final_norm",
    },
    heads={
        "classify": HeadTable("ModernBertForSequenceClassification", _HEAD, _classify),
        "tag": HeadTable("ModernBertForTokenClassification", _TOKEN_HEAD, _tag),
        "lm": HeadTable(
            "ModernBertForMaskedLM",
            {"dense": "head.dense", "norm": "head.norm", "bias": "decoder.bias", "table": "decoder"},
            _lm,
        ),
        "span": HeadTable(
            "ModernBertForQuestionAnswering", _TOKEN_HEAD, lambda config: settings(SpanConfig, _hidden(config))
        ),
        "choice": HeadTable(
            "ModernBertForMultipleChoice", _HEAD, lambda config: settings(ChoiceConfig, _pooled(config))
        ),
    },
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="ModernBertModel",
    fused=(
        Fused(_LAYER + "attn.Wqkv", ("query", "key", "value"), **_apart(3)),
        Fused(_LAYER + "mlp.Wi", ("gate", "up"), **_apart(2)),  # transformers calls them input and gate
    ),
    presets={
        "modernbert_mini": _SIZES
        | {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 384},
        "modernbert_base": _SIZES
        | {"hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12, "intermediate_size": 1152},
    },
)
