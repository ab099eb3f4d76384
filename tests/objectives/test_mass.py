"""MASS by brute force, and its loss against a BART that may not see what stands before the span."""

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given
from hypothesis import strategies as st
from made_samples import BEGIN, END, FIRST, MASK, couple, drawn, labels, likely, parts, row, single, vocabulary
from parity import assert_equal, perturbed
from toys import toy

from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.models._checkpoint import load
from tunesmith.objectives._documents import documents
from tunesmith.objectives.mass import MASSConfig

SIZE = 6000
BART = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
BART |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32, "max_position_embeddings": 80}


def objective(*, model=None, **fields):
    model = toy("encoder_decoder", "none") if model is None else model
    return MASSConfig(**fields).build(model, vocabulary(SIZE, frame="bart"), max_tokens=512, seed=0)


def documents_of(batch):
    """Source, decoder input, positions and labels of each document."""
    layout = batch.target.layout
    positions = np.split(layout.positions[: layout.num_tokens].numpy(), np.cumsum(layout.lengths)[:-1])
    return zip(parts(batch.source), parts(batch.target), positions, labels(batch, batch.target), strict=True)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.sampled_from(["single", "couple", "row"]),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.sampled_from(["t5", "bart", "xlnet"]),
    st.integers(0, 99),
)
def test_a_span_is_masked_and_written(lengths, kind, share, frame, seed):
    texts = {"single": single(*lengths, frame=frame), "row": row(*lengths, frame=frame)}
    made = texts.get(kind) or couple(lengths, (3, 2), frame=frame)
    batch = objective(span=share, mask_share=1.0, random_share=0.0).prepare(drawn(made, seed=seed))
    originals = {tuple(one.sample.ids) for one in documents(drawn(made))}
    recovered = set()
    for source, read, positions, target in documents_of(batch):
        places = np.flatnonzero(source == MASK)
        whole = source.copy()
        whole[places] = target
        recovered.add(tuple(whole))
        np.testing.assert_array_equal(positions, places)
        assert len(places) == max(1, round(share * (whole >= FIRST).sum()))
        assert (target >= FIRST).all()
        between = whole[places[0] : places[-1] + 1]
        assert (between >= FIRST).sum() == len(places)  # contiguous, special tokens aside
        np.testing.assert_array_equal(read, np.concatenate([[0], whole])[places])
    assert recovered == originals


def test_where_the_span_begins():
    starts = np.zeros(6, dtype=int)
    for source, *_ in documents_of(
        objective(mask_share=1.0, random_share=0.0).prepare(drawn(*[single(10, frame="bart")] * 5000))
    ):
        starts[np.flatnonzero(source == MASK)[0] - 1] += 1
    assert likely(starts, [0.2 + 0.1, 0.1, 0.1, 0.1, 0.1, 0.2 + 0.1])


def test_what_becomes_of_the_span():
    counts = np.zeros(3, dtype=int)
    for source, _, positions, target in documents_of(objective().prepare(drawn(*[single(100, frame="bart")] * 100))):
        inside = source[positions]
        assert (inside[inside != MASK] >= FIRST).all()
        counts += [(inside == MASK).sum(), (inside == target).sum(), ((inside != MASK) & (inside != target)).sum()]
    assert counts.sum() == 5000
    for count, share in zip(counts, (0.8, 0.1, 0.1), strict=True):
        assert scipy.stats.binomtest(int(count), 5000, share).pvalue > 1e-4


def test_a_sample_does_not_depend_on_the_others():
    samples = [single(n, frame="bart") for n in (12, 40, 25)]
    together = parts(objective().prepare(drawn(*samples)).source)
    for one in drawn(*samples):
        (alone,) = parts(objective().prepare([one]).source)
        assert any(np.array_equal(alone, source) for source in together)


def test_a_text_without_a_token_is_not_written():
    empty = single(0, frame="bart")
    made = objective()
    batch = made.prepare(drawn(empty, single(6, frame="bart")))
    assert made.targets(batch) == {"lm": 3}
    assert [list(source) for source in parts(batch.source)][0] == [BEGIN, END]


def test_loss_of_transformers(tmp_path):
    config = transformers.BartConfig(vocab_size=SIZE, **BART, decoder_start_token_id=2)
    theirs = perturbed(transformers.BartForConditionalGeneration, config)
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert MASSConfig().head(model) == model.config.head
    made = objective(model=model)
    batch = made.prepare(drawn(single(30, frame="bart"), single(7, frame="t5"), row(17, 40, frame="bart")))
    loss = made.loss(model, batch, phase="train")["lm"]
    expected = torch.zeros(())
    for source, _, positions, target in documents_of(batch):
        whole = source.copy()
        whole[positions] = target
        seen = torch.zeros(1, len(whole), dtype=torch.long)
        seen[0, positions] = 1
        logits = theirs(
            input_ids=torch.tensor(source)[None],
            decoder_input_ids=torch.tensor([2, *whole[:-1]])[None],
            decoder_attention_mask=seen,
        ).logits[0, positions]
        expected = expected + F.cross_entropy(logits, torch.tensor(target), reduction="sum")
    assert_equal(loss, expected.detach())


def test_errors_of_the_user():
    with pytest.raises(CheckpointError, match="which objective mass needs"):
        MASSConfig().build(toy("encoder_decoder", "none"), vocabulary(500, mask=None), max_tokens=64, seed=0)
    with pytest.raises(SettingError, match="mass trains an encoder-decoder"):
        MASSConfig().head(toy("decoder", "none"))
    for fields in ({"front": 0.7, "back": 0.4}, {"mask_share": 0.95}):
        with pytest.raises(ValueError, match="must not be more than 1 together"):
            MASSConfig(**fields)
