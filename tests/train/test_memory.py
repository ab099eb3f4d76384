"""Bytes beside those of a real training step."""

import pytest
import torch
from toys import toy

from tunesmith.base import choices
from tunesmith.base.layout import make_layout
from tunesmith.base.random import torch_stream
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.two_streams import two_streams
from tunesmith.train.cost import Reading
from tunesmith.train.memory import estimate_activations, plan_memory

OPTIMISERS = choices.names("optimiser")


def loss_of(model, *, num_documents, length, predicted, dtype=None):
    ids = torch.arange(num_documents * length) % 13
    layout = make_layout([length] * num_documents, noise=torch_stream("test"))
    rows = torch.cat([torch.arange(predicted) + start for start in layout.starts.tolist()])
    memory = None
    if model.encoder is not None and model.decoder is not None:
        memory = model.encoder(ids, layout, dtype=dtype), layout
    hidden = model.trunk(ids, layout, rows=rows if predicted < length else None, memory=memory, dtype=dtype)
    return model.head.loss(hidden, torch.zeros(len(hidden), dtype=torch.long))


def size(tensors):
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


@pytest.mark.parametrize("kind", ["encoder", "encoder_decoder"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_real_step(name, kind):
    model = toy(kind, "learned", "swiglu", head=LMConfig(bias="fixed")).float()
    config = choices.config_class("optimiser", name)()
    optimiser = config.build(dict(model.named_parameters()), learning_rate=0.1, weight_decay=0.1)
    loss_of(model, num_documents=2, length=32, predicted=8).backward()
    optimiser.step()
    plan = plan_memory(model.config, config, Reading(32, target_length=32, predicted=0.25), num_sequences=2)
    assert plan.weights == size([*model.parameters(), *model.buffers()])
    assert plan.gradients == size(parameter.grad for parameter in model.parameters())
    states = optimiser.state_dict()["state"].values()
    assert plan.optimiser == size(tensor for table in states for tensor in table.values())
    assert plan.gathered == 0
    assert plan.buckets == 0
    assert plan.total == sum((plan.weights, plan.gradients, plan.optimiser, plan.activations))


def test_shards():
    """Rows of each tensor are dealt out; the first device has the largest share."""
    model = toy("encoder", "learned")
    config = choices.config_class("optimiser", "adamw")()
    plans = {
        sharding: plan_memory(model.config, config, Reading(32), num_sequences=2, num_devices=4, sharding=sharding)
        for sharding in ("ddp", "fsdp")
    }
    shares = [torch.chunk(parameter, 4)[0].numel() for parameter in model.parameters()]
    assert plans["fsdp"].weights == plans["fsdp"].gradients == 4 * sum(shares)
    assert plans["fsdp"].optimiser == 4 * sum(2 * share + 1 for share in shares)
    assert plans["ddp"].weights == 4 * sum(parameter.numel() for parameter in model.parameters())
    assert plans["fsdp"].gathered > 0
    assert plans["fsdp"].buckets == 0
    assert plans["ddp"].buckets == plans["ddp"].gradients
    assert plans["fsdp"].activations == plans["ddp"].activations


def kept_for_backward(model, run):
    """Bytes of all that the graph of a loss holds, each storage once, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = {}

    def see(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (held.append(tensor), see(tensor))[1], lambda x: x):
        loss = run()
    seen, stack = set(), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for kept in getattr(node, "kept", ()):
            for tensor in vars(kept).values():
                if isinstance(tensor, torch.Tensor):
                    see(tensor)
        stack += [following for following, _ in node.next_functions]
    return sum(found.values())


SIZES = {"vocab_size": 500, "d_model": 64, "d_embedding": 64, "num_heads": 4, "d_ff": 256, "num_layers": 4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    ("kind", "feedforward", "position"),
    [
        ("encoder", "gelu", "learned"),
        ("decoder", "swiglu", "rope"),
        ("encoder_decoder", "gelu", "learned"),
        ("encoder", "gelu", "t5_bias"),
    ],
)
def test_activations(kind, feedforward, position, dropout, dtype):
    rates = {"dropout": dropout, "attention_dropout": dropout}
    model = toy(kind, position, feedforward, head=LMConfig(activation=None), **SIZES, **rates).float().train()
    real = kept_for_backward(model, lambda: loss_of(model, num_documents=8, length=64, predicted=8, dtype=dtype))
    reading = Reading(64, target_length=64, predicted=8 / 64)
    estimate = estimate_activations(model, reading, num_sequences=8, dtype=dtype)
    assert estimate == pytest.approx(real, rel=0.2)


def test_activations_of_two_streams():
    """The queries of the predicted tokens go through all blocks beside the content."""
    head = LMConfig(activation=None)
    model = toy("encoder", "learned", head=head, query_stream="learned", **SIZES).float().train()
    layout = make_layout([64] * 8, noise=torch_stream("test"))
    targets = torch.cat([torch.arange(0, 64, 6) + start for start in layout.starts.tolist()])
    hidden = torch.zeros(8, 64, 64, dtype=torch.bool)

    def run():
        ids = torch.arange(8 * 64) % 13
        found = two_streams(model.trunk, ids, layout, hidden=hidden, targets=targets)
        return model.head.loss(found, torch.zeros(len(found), dtype=torch.long))

    reading = Reading(64, predicted=11 / 64, streams=2)
    estimate = estimate_activations(model, reading, num_sequences=8, dtype=torch.float32)
    assert estimate == pytest.approx(kept_for_backward(model, run), rel=0.2)
