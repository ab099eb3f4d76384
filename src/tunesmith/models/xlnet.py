"""XLNet: Transformer-XL's relative positions, and a second stream that predicts tokens in any order.

Paper: XLNet (arXiv:1906.08237). Texts end in the separator and the class token, so heads read the last token.
Differs: no memory of earlier segments (``mem_len``, ``reuse_len`` are kept but not used); relative positions have no
dropout in training. A prediction that may see no token at all sees padding in transformers, here it must not occur.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Foreign, Fused, HeadTable, Stacks
from tunesmith.models._activations import ACTIVATION, PLAIN, name_of
from tunesmith.models._encoder import classify_from_hf, lm_from_hf
from tunesmith.models._fields import look_up, need, settings
from tunesmith.models._fields import num_labels as count_labels
from tunesmith.nn.head.choice import ChoiceConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.span import SpanConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.nn.norm.layer_norm import LayerNormConfig
from tunesmith.nn.position.transformer_xl import TransformerXLConfig
from tunesmith.nn.transformer import TransformerConfig

_LAYER = "@layer.{i}."
_FOREIGN = {
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "d_ff": "d_inner",
    "initial_std": "initializer_range",
    "eps": "layer_norm_eps",
}
_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "clamp_len": (lambda value: isinstance(value, int) and value > 0, "clamped distances are not supported"),
    "bi_data": (bool, "halves of a batch that run backwards are not supported"),
    "same_length": (bool, "attention of one length is not supported"),
}
_NO_LIMIT = 10_000_000


def _from_hf(config: Foreign) -> Stacks:
    for field, (refused, reason) in _REFUSED.items():
        if refused(config.get(field)):
            raise CheckpointError(f"config.json {field}: {reason}, got {config[field]!r}")
    if config.get("attn_type", "bi") not in ("bi", "uni"):
        raise CheckpointError(f"config.json attn_type: must be bi or uni, got {config['attn_type']!r}")
    width, heads = need(config, "d_model"), need(config, "n_head")
    if width % heads:
        raise CheckpointError(f"config.json n_head: must divide d_model {width}, got {heads}")
    rate = config.get("dropout", 0.1)
    encoder = settings(
        TransformerConfig,
        {
            "vocab_size": need(config, "vocab_size"),
            "d_model": width,
            "d_embedding": width,
            "num_layers": need(config, "n_layer"),
            "num_heads": heads,
            "d_head": config.get("d_head") or width // heads,
            "d_ff": need(config, "d_inner"),
            "max_positions": _NO_LIMIT,
            "num_segments": 0,
            "causal": config.get("attn_type") == "uni",
            "biases": "none",
            "embedding_norm": False,
            "query_stream": "learned",
            "dropout": rate,
            "attention_dropout": rate,
            "feedforward_dropout": rate,
            "final_dropout": rate,
            "initial_std": config.get("initializer_range", 0.02),
            "position": TransformerXLConfig(segments=True),
            "feedforward": look_up(PLAIN, config, "ff_activation"),
            "norm": settings(LayerNormConfig, {"eps": config.get("layer_norm_eps", 1e-12)}, names=_FOREIGN),
        },
        names=_FOREIGN,
    )
    return Stacks(encoder)


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    config = stacks.encoder
    assert config is not None
    assert isinstance(config.norm, LayerNormConfig)
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "d_head": config.head_width,
        "d_inner": config.d_ff,
        "ff_activation": name_of(config.feedforward, PLAIN),
        "attn_type": "uni" if config.causal else "bi",
        "dropout": config.dropout,
        "initializer_range": config.initial_std,
        "layer_norm_eps": config.norm.eps,
    }


def _summary(config: Foreign) -> dict[str, Any]:
    """The hidden layer of the heads that read one token."""
    kind = config.get("summary_type", "last")
    if kind not in ("last", "first"):
        raise CheckpointError(f"config.json summary_type: only 'last' and 'first' are supported, got {kind!r}")
    if config.get("summary_use_proj", True) is not True:
        got = config["summary_use_proj"]
        raise CheckpointError(f"config.json summary_use_proj: only True is supported, got {got!r}")
    return {
        "pooling": kind,
        "hidden": look_up(ACTIVATION, {"summary_activation": "tanh", **config}, "summary_activation"),
        "dropout": config.get("summary_last_dropout", 0.1),
    }


def _classify(config: Foreign) -> ClassifyConfig:
    plain = classify_from_hf({**config, "classifier_dropout": 0.0}, hidden="tanh", dropout_before_hidden=False)
    return settings(ClassifyConfig, {**dict(plain), **_summary(config)})


def _tag(config: Foreign) -> TagConfig:
    return settings(TagConfig, {"num_labels": count_labels(config), "dropout": 0.0})


def _to_heads(tensor: Tensor, config: TransformerConfig) -> Sequence[Tensor]:
    """[d, heads, d_head] as our (heads * d_head, d)."""
    return [_flat(tensor, config).T.contiguous()]


def _from_heads(parts: Sequence[Tensor], config: TransformerConfig) -> Tensor:
    return parts[0].T.reshape(config.d_model, config.num_heads, config.head_width)


def _flat(tensor: Tensor, config: TransformerConfig) -> Tensor:
    if tensor.shape != (config.d_model, config.num_heads, config.head_width):
        raise ValueError("not one matrix for each head")
    return tensor.reshape(config.d_model, -1)


_SIZES = {"vocab_size": 32000, "pad_token_id": 5, "bos_token_id": 1, "eos_token_id": 2}
_SUMMARY = {"dense": "sequence_summary.summary", "output": "logits_proj"}

FAMILY = Family(
    name="xlnet",
    prefix="transformer",
    keys={
        "encoder.embeddings.tokens": "@word_embedding",
        "encoder.embeddings.query": "@mask_emb#start",
        "encoder.blocks.{i}.attention.query.weight": _LAYER + "rel_attn.q#map",
        "encoder.blocks.{i}.attention.key.weight": _LAYER + "rel_attn.k#map",
        "encoder.blocks.{i}.attention.value.weight": _LAYER + "rel_attn.v#map",
        "encoder.blocks.{i}.attention.output.weight": _LAYER + "rel_attn.o#map",
        "encoder.blocks.{i}.attention.position.project.weight": _LAYER + "rel_attn.r#map",
        "encoder.blocks.{i}.attention.position.content_bias": _LAYER + "rel_attn.r_w_bias",
        "encoder.blocks.{i}.attention.position.position_bias": _LAYER + "rel_attn.r_r_bias",
        "encoder.blocks.{i}.attention.position.segment_bias": _LAYER + "rel_attn.r_s_bias",
        "encoder.blocks.{i}.attention.position.segment": _LAYER + "rel_attn.seg_embed",
        "encoder.blocks.{i}.attention_norm": _LAYER + "rel_attn.layer_norm",
        "encoder.blocks.{i}.feedforward.up": _LAYER + "ff.layer_1",
        "encoder.blocks.{i}.feedforward.down": _LAYER + "ff.layer_2",
        "encoder.blocks.{i}.feedforward_norm": _LAYER + "ff.layer_norm",
    },
    heads={
        "classify": HeadTable("XLNetForSequenceClassification", _SUMMARY, _classify),
        "tag": HeadTable("XLNetForTokenClassification", {"output": "classifier"}, _tag),
        "lm": HeadTable(
            "XLNetLMHeadModel",
            {"bias": "lm_loss.bias", "table": "lm_loss"},
            lambda config: lm_from_hf(config).model_copy(update={"activation": None}),
        ),
        "span": HeadTable("XLNetForQuestionAnsweringSimple", {"output": "qa_outputs"}, lambda config: SpanConfig()),
        "choice": HeadTable(
            "XLNetForMultipleChoice", _SUMMARY, lambda config: settings(ChoiceConfig, _summary(config))
        ),
    },
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="XLNetModel",
    head_dropout="summary_last_dropout",
    fused=(
        Fused(
            "@mask_emb",
            ("start",),
            lambda tensor, config: [tensor.reshape(1, config.d_model)],
            lambda parts, config: parts[0].reshape(1, 1, config.d_model),
        ),
        *(Fused(f"{_LAYER}rel_attn.{name}", ("map",), _to_heads, _from_heads) for name in "qkvr"),
        Fused(  # applied as its transpose: the output map as it stands
            _LAYER + "rel_attn.o",
            ("map",),
            lambda tensor, config: [_flat(tensor, config)],
            lambda parts, config: parts[0].reshape(config.d_model, config.num_heads, config.head_width),
        ),
    ),
    presets={
        "xlnet_mini": _SIZES | {"d_model": 256, "n_layer": 4, "n_head": 4, "d_inner": 1024},
        "xlnet_base": _SIZES | {"d_model": 768, "n_layer": 12, "n_head": 12, "d_inner": 3072},
        "xlnet_large": _SIZES | {"d_model": 1024, "n_layer": 24, "n_head": 16, "d_inner": 4096},
    },
)
