"""A text is learned to end where it ends, and nowhere else, however it is cut into sequences."""

import numpy as np
import pytest
from corpora import BEGIN, END, FIRST, FRAMES, drawn, keyed, numbered, vocabulary
from toys import toy

from tunesmith.base import choices

LENGTHS = [[5, 40, 7], [3], [30, 31], [1], [12, 12, 12, 12], [0], [23]]
"""Documents of sentences; sequences hold 24 tokens."""
ONCE = ("doc_sentences", "full_sentences", "packed")


def lasts():
    """The last token of each document, and the first."""
    _, documents = numbered(LENGTHS)
    flat = [[token for sentence in document for token in sentence] for document in documents]
    return {text[-1] for text in flat if text}, {text[0] for text in flat if text}


def prepared(objective, input, frame, *, kind="decoder"):
    """A batch of all sequences of an epoch."""
    tokens, _ = numbered(LENGTHS)
    samples = choices.choose("input", input).samples(tokens, FRAMES[frame], max_tokens=24, stream=keyed())
    model = toy(kind, "none", vocab_size=400)
    known = vocabulary(400, frame=frame)
    made = choices.choose("objective", objective).build(model, known, max_tokens=24, seed=0)
    return made.prepare(drawn([samples[i] for i in range(len(samples))]))


@pytest.mark.parametrize("frame", ["gpt2", "llama", "bert", "xlnet"])
@pytest.mark.parametrize("input", [*ONCE, "blocks"])
@pytest.mark.parametrize("objective", ["clm", "prefix_lm"])
def test_a_decoder_learns_each_end_once(objective, input, frame):
    ends, begins = lasts()
    batch = prepared(objective, input, frame)
    ids = batch.source.token_ids.numpy()
    rows, labels = batch.rows.numpy(), batch.labels.numpy()
    assert (ids[rows + 1] == labels).all()
    before = ids[rows[labels == END]]
    assert set(before.tolist()) <= ends  # what stands before an end is the end of a text
    assert input == "blocks" or len(before) == len(ends) or objective == "prefix_lm"  # some stand in the prefix
    after = ids[np.flatnonzero(ids[:-1] == BEGIN) + 1]
    if "xlnet" not in frame:
        assert set(after[after >= FIRST].tolist()) <= begins


@pytest.mark.parametrize("frame", ["gpt2", "bert"])
@pytest.mark.parametrize("input", [*ONCE, "blocks"])
def test_a_decoder_behind_an_encoder_too(input, frame):
    ends, _ = lasts()
    batch = prepared("prefix_lm", input, frame, kind="encoder_decoder")
    labels = np.split(batch.labels.numpy(), np.cumsum(batch.target.layout.lengths)[:-1])
    for target in labels:
        last = [token for token in target if token >= FIRST][-1]
        assert target[-1] != END or last in ends
        assert target[-1] == END or last not in ends or input == "blocks"  # which may be cut right before the end
    sources = np.split(batch.source.token_ids.numpy(), np.cumsum(batch.source.layout.lengths))[:-1]
    if input != "blocks":
        assert all(source[-1] == END for source in sources)  # what an encoder reads is closed, as other objectives do


@pytest.mark.parametrize("input", ONCE)
def test_other_objectives_keep_what_stands_around_a_piece(input):
    batch = prepared("mlm", input, "bert", kind="encoder")
    layout, ids = batch.source.layout, batch.source.token_ids
    assert (ids[layout.starts] == BEGIN).all()
    assert (ids[layout.ends] == END).all()
