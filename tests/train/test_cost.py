"""Weights and operations beside transformers' models and torch's counter of what really runs."""

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from toys import SMALL, stack, toy

from tunesmith.base import choices
from tunesmith.base.layout import make_layout
from tunesmith.models import _checkpoint
from tunesmith.models.model import Model, ModelConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.pretrain import PretrainConfig
from tunesmith.nn.head.rtd import RTDConfig
from tunesmith.nn.two_streams import two_streams
from tunesmith.train.cost import Reading, bill, count_flops, count_parameters, part_of, skeleton

NUM_DOCUMENTS, LENGTH, PREDICTED = 4, 32, 8  # bins of attention without padding
PRESETS = [
    (family, name) for family in choices.names("model") for name in choices.module("model", family).FAMILY.presets
]


def preset(family, name):
    table = choices.module("model", family).FAMILY
    foreign = {**table.presets[name], "model_type": table.name, "architectures": [table.bare]}
    return _checkpoint.config_from_hf(foreign, source=name), foreign


@pytest.mark.parametrize(("family", "name"), PRESETS)
def test_parameters_of_presets(family, name):
    config, foreign = preset(family, name)
    kind = getattr(transformers, foreign["architectures"][0])
    with torch.device("meta"):
        theirs = kind(kind.config_class(**{key: value for key, value in foreign.items() if key != "model_type"}))
    assert count_parameters(config).total == sum(parameter.numel() for parameter in theirs.parameters())


def test_parts_of_bert():
    found = count_parameters(preset("bert", "bert_base")[0])
    d, f, layers = 768, 3072, 12
    assert found.embeddings == (30522 + 512 + 2) * d
    assert found.attention == layers * 4 * (d * d + d)
    assert found.feedforward == layers * (2 * d * f + f + d)
    assert found.norms == 2 * d * (1 + 2 * layers)
    assert found.convolution == 0
    assert found.head == d * d + d


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoder.embeddings.position.norm.weight", "norms"),
        ("encoder.embeddings.project.weight", "embeddings"),
        ("decoder.blocks.1.cross_norm.bias", "norms"),
        ("decoder.blocks.1.cross_attention.key.weight", "attention"),
        ("encoder.blocks.0.attention.position.table", "attention"),
        ("encoder.blocks.0.attention.query_norm.weight", "norms"),
        ("encoder.convolution.norm.weight", "norms"),
        ("encoder.convolution.map.weight", "convolution"),
        ("head.norm.weight", "head"),
        ("head.bias", "head"),
    ],
)
def test_parts(name, part):
    assert part_of(name) == part


def test_nothing_is_allocated():
    assert all(parameter.is_meta for parameter in skeleton(preset("llama", PRESET_OF["llama"])[0]).parameters())


PRESET_OF = {family: name for family, name in PRESETS}


def layout_of(num_documents=NUM_DOCUMENTS):
    return make_layout([LENGTH] * num_documents)


def loss_of(model, *, predicted):
    """As an objective has it: hidden states of the predicted rows only, then the fused loss of the head."""
    ids = torch.arange(NUM_DOCUMENTS * LENGTH) % 13
    layout, rows = layout_of(), None
    if predicted < LENGTH:
        rows = torch.cat([torch.arange(predicted) * 3 + start for start in layout.starts.tolist()])
    memory = None
    if model.encoder is not None and model.decoder is not None:
        memory = model.encoder(ids, layout), layout
    hidden = model.trunk(ids, layout, rows=rows, memory=memory)
    head = model.head.lm if hasattr(model.head, "lm") else model.head
    return head.loss(hidden, torch.zeros(len(hidden), dtype=torch.long))


def counted(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def check(model, *, predicted, extra=0.0):
    both = model.encoder is not None and model.decoder is not None
    reading = Reading(LENGTH, target_length=LENGTH if both else 0, predicted=predicted / LENGTH)
    flops = count_flops(model.config, reading)
    with torch.no_grad():
        assert counted(lambda: loss_of(model, predicted=predicted)) == NUM_DOCUMENTS * flops.forward + extra
    assert counted(lambda: loss_of(model, predicted=predicted).backward()) == NUM_DOCUMENTS * flops.training + 3 * extra


@pytest.mark.parametrize("predicted", [PREDICTED, LENGTH])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder_decoder"])
@pytest.mark.parametrize("feedforward", ["gelu", "swiglu"])
def test_operations(kind, feedforward, predicted):
    check(toy(kind, "learned", feedforward), predicted=predicted)


@pytest.mark.parametrize("predicted", [PREDICTED, LENGTH])
def test_operations_of_a_convolution(predicted):
    encoder = stack("none", convolution={"kernel": 3})
    model = Model(ModelConfig(family="custom", encoder=encoder, head=LMConfig())).double()
    check(model, predicted=predicted)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_kv_heads": 1},
        {"d_head": 6},
        {"num_stored": 1},
        {"num_layers": 1},
        {"head_norm": True, "norm": "rms_norm"},
        {"d_embedding": 4, "head": LMConfig(activation="gelu")},
        {"layers": ({"window": 3}, {})},
        {"position": "rope"},
        {"position": "t5_bias"},
        {"position": "alibi"},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_operations_of_variants(fields):
    fields = {"position": "none"} | fields
    predicted = LENGTH if fields["position"] in ("t5_bias", "alibi") else PREDICTED
    check(toy("encoder", **fields), predicted=predicted)


@pytest.mark.parametrize("name", ["shaw", "music", "disentangled", "transformer_xl"])
def test_operations_of_relative_positions(name):
    """What is projected once for a whole batch is not counted per sequence: it is added here."""
    model = toy("encoder", name)
    width, d_model, layers = 2 * LENGTH - 1, 8, 2
    once = {"disentangled": 2, "transformer_xl": 1}.get(name, 0)
    extra = layers * once * 2 * width * d_model * d_model
    reading = Reading(LENGTH)
    flops = count_flops(model.config, reading)
    with torch.no_grad():
        assert counted(lambda: loss_of(model, predicted=LENGTH)) == NUM_DOCUMENTS * flops.forward + extra
    assert name in SMALL


def test_operations_of_two_streams():
    """Content through all blocks but the last, queries of the predicted tokens through all."""
    model = toy("encoder", "none", query_stream="learned", num_layers=3).requires_grad_(False)
    layout = layout_of()
    targets = torch.cat([torch.arange(PREDICTED) * 3 + start for start in layout.starts.tolist()])
    hidden = torch.zeros(NUM_DOCUMENTS, LENGTH, LENGTH, dtype=torch.bool)

    def run():
        ids = torch.arange(NUM_DOCUMENTS * LENGTH) % 13
        found = two_streams(model.trunk, ids, layout, hidden=hidden, targets=targets)
        return model.head.loss(found, torch.zeros(len(found), dtype=torch.long))

    flops = count_flops(model.config, Reading(LENGTH, predicted=PREDICTED / LENGTH, streams=2))
    assert counted(run) == NUM_DOCUMENTS * flops.forward


def test_heads_that_read_one_vector():
    found = count_flops(
        toy("encoder", "none", head=ClassifyConfig(num_labels=3, hidden="tanh")).config, Reading(LENGTH)
    )
    assert found.head == 2 * (8 * 8 + 8 * 3)
    lm = count_flops(toy("encoder", "none", head=LMConfig()).config, Reading(LENGTH, predicted=0.25)).head
    found = count_flops(toy("encoder", "none", head=PretrainConfig()).config, Reading(LENGTH, predicted=0.25)).head
    assert lm == 2 * 8 * (8 * 8 + 13 * 8)
    assert found == lm + 2 * (8 * 8 + 8 * 2)
    found = count_flops(toy("encoder", "none", head=RTDConfig()).config, Reading(LENGTH)).head
    assert found == 2 * LENGTH * (8 * 8 + 8)


def test_six_n():
    """The rule of thumb: six operations for each weight of the blocks and each token, where texts are short."""
    config = preset("bert", "bert_base")[0]
    parts = count_parameters(config)
    flops = count_flops(config, Reading(16)).training / 16
    assert flops == pytest.approx(6 * (parts.attention + parts.feedforward), rel=0.01)


def test_bill():
    found = bill(3.6e18, flops_per_second=1e14, num_devices=4, price_per_hour=2.5)
    assert found.seconds == pytest.approx(9000)
    assert found.device_hours == pytest.approx(10)
    assert found.price == pytest.approx(25)
