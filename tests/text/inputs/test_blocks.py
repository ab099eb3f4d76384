"""Blocks are a ring of tokens, cut at another place in each epoch."""

import pytest
from corpora import END, FRAMES, keyed, numbered
from hypothesis import assume, given
from hypothesis import strategies as st

from tunesmith.text.inputs.blocks import BlocksConfig


@pytest.mark.parametrize("frame", FRAMES)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=8), st.integers(2, 30), st.integers(0, 9))
def test_blocks_are_the_stream_from_some_place_on(frame, lengths, max_tokens, epoch):
    """What separates documents is what ends a text, also where templates only say how one begins."""
    tokens, documents = numbered(lengths)
    ring = []
    for document in documents:
        flat = [token for sentence in document for token in sentence]
        ring += [*flat, END] if flat else []
    assume(len(ring) >= max_tokens)
    found = BlocksConfig().samples(tokens, FRAMES[frame], max_tokens=max_tokens, stream=keyed(epoch=epoch))
    assert len(found) == len(ring) // max_tokens
    flat = [token for i in range(len(found)) for token in found[i].ids.tolist()]
    assert any(flat == (ring[at:] + ring[:at])[: len(flat)] for at in range(len(ring)))


def test_every_token_is_left_out_in_some_epoch_and_used_in_most():
    tokens, _ = numbered([[5, 4], [7]])
    uses = {}
    for epoch in range(200):
        found = BlocksConfig().samples(tokens, FRAMES["gpt2"], max_tokens=10, stream=keyed(epoch=epoch))
        for token in found[0].ids.tolist():
            uses[token] = uses.get(token, 0) + 1
    assert len(uses) == 17
    assert min(uses.values()) > 60  # 200 * 10 / 18 = 111 expected
    assert max(count for token, count in uses.items() if token != END) < 165
