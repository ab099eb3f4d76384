"""With a cache as without: every position encoding, several tokens at a time, windows, memories, beams."""

import pytest
import torch
from toys import POSITIONS, WORDS, toy, words

from tunesmith.base.layout import make_layout
from tunesmith.nn.decoding.session import Session
from tunesmith.nn.transformer import LayerConfig

LENGTHS = (7, 1, 4, 12)
ROPES = {
    "linear": {"kind": "linear", "factor": 2.0},
    "ntk": {"kind": "ntk", "factor": 2.0},
    "yarn": {"kind": "yarn", "factor": 2.0, "original": 8},
}


def documents(*lengths, seed=0):
    return list(words(*lengths, seed=seed).split(lengths))


def reference(model, document, memory=None):
    """Logits behind each token, from one whole forward of one document."""
    layout = make_layout([len(document)])
    with torch.no_grad():
        read = None
        if memory is not None:
            source = make_layout([len(memory)])
            read = model.encoder(memory, source), source
        return model.head(model.decoder(document, layout, memory=read), None)


def session_of(model, memories=None, room=0):
    read = None
    if memories is not None:
        source = make_layout([len(memory) for memory in memories])
        read = model.encoder(torch.cat(memories), source), source
    return Session(model.decoder, model.head, memory=read, room=room)


def check(model, pieces, memories=None, room=0):
    """Feed the pieces of each document step by step; every logit must be that of the whole document."""
    with torch.no_grad():
        session = session_of(model, memories, room)
        wholes = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
        expected = [
            reference(model, whole, None if memories is None else memories[i]) for i, whole in enumerate(wholes)
        ]
        done = [0] * len(wholes)
        for step, piece in enumerate(pieces):
            lengths = [len(part) for part in piece]
            if step % 2 and set(lengths) == {1}:
                found = session.step(torch.cat(piece)).split(1)
            else:
                found = session.feed_all(piece).split(lengths)
            for i, part in enumerate(found):
                wanted = expected[i][done[i] : done[i] + lengths[i]]
                torch.testing.assert_close(part, wanted, rtol=0, atol=1e-10)
                done[i] += lengths[i]


def pieces_of(*steps):
    return [documents(*lengths, seed=i) for i, lengths in enumerate(steps)]


ONE_BY_ONE = [LENGTHS, *[(1, 1, 1, 1)] * 5]
MANY = [LENGTHS, (3, 5, 1, 2), (1, 1, 1, 1), (40, 2, 1, 33), (2, 2, 2, 2)]


@pytest.mark.parametrize("steps", [ONE_BY_ONE, MANY], ids=["one by one", "several at a time"])
@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_encoding(position, steps):
    check(toy("decoder", position), pieces_of(*steps))


@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_encoding_with_a_memory(position):
    check(toy("encoder_decoder", position), pieces_of(*MANY), documents(5, 1, 37, 3, seed=9))


@pytest.mark.parametrize("window", [0, 1, 4])
@pytest.mark.parametrize("position", ["rope", "alibi", "shaw"])
def test_windows(position, window):
    layers = (LayerConfig(window=window), LayerConfig())
    check(toy("decoder", position, layers=layers), pieces_of(*MANY))
    check(toy("decoder", position, layers=layers[:1]), pieces_of(*ONE_BY_ONE))


@pytest.mark.parametrize("position", POSITIONS)
def test_few_key_heads(position):
    check(toy("decoder", position, num_kv_heads=1), pieces_of(*MANY))


@pytest.mark.parametrize("name", ROPES)
def test_stretched_rope(name):
    fields = {"name": "rope", "extension": ROPES[name]}
    model = toy("decoder", "rope", num_heads=1)
    stretched = toy("decoder", "rope", num_heads=1)
    config = stretched.config.decoder.position.model_validate({k: v for k, v in fields.items() if k != "name"})
    sizes = stretched.config.decoder.position_sizes
    stretched.decoder.embeddings.position = config.build(sizes).double()
    document = documents(12)[0]
    assert not torch.allclose(reference(model, document), reference(stretched, document))
    check(stretched, pieces_of(*MANY))


@pytest.mark.parametrize("room", [0, 5, 1000])
def test_room_changes_nothing(room):
    check(toy("decoder", "rope"), pieces_of(*MANY), room=room)


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_selected_sequences_go_on(kind):
    """As beams do: some fall out, others come twice, and each copy goes its own way."""
    model = toy(kind, "t5_bias")
    memories = None if kind == "decoder" else documents(5, 1, 37, 3, seed=9)
    first, rows = documents(*LENGTHS), [3, 0, 0, 2, 3]
    rest = documents(*[3] * len(rows), seed=1)
    with torch.no_grad():
        session = session_of(model, memories)
        session.feed(first)
        session.select(torch.tensor(rows))
        assert len(session.cache.lengths) == len(rows)
        found = session.feed_all(rest).split(3)
        for row, more, part in zip(rows, rest, found, strict=True):
            memory = None if memories is None else memories[row]
            wanted = reference(model, torch.cat([first[row], more]), memory)[-3:]
            torch.testing.assert_close(part, wanted, rtol=0, atol=1e-10)


def test_the_vocabulary_is_what_it_seems():
    assert reference(toy("decoder", "rope"), documents(3)[0]).shape == (3, WORDS)
