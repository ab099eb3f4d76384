"""The real all-MiniLM-L6-v2 against transformers, on 200 real sentences of mixed length in one batch."""

import pytest
import torch
import transformers

import tunesmith as ts
from tunesmith.base.errors import CheckpointError
from tunesmith.recipes.quickstart import packaged_model
from tunesmith.text.docstrings import standard_library_docstrings


@pytest.fixture(scope="module")
def folder():
    try:
        return packaged_model()
    except CheckpointError as error:
        pytest.skip(str(error))


def test_hidden_states_are_equal_and_files_go_both_ways(folder, tmp_path):
    texts = sorted(standard_library_docstrings(limit=1000, seed=1).texts, key=len)[::5]
    assert len(texts) == 200
    ours, theirs = ts.load(folder), transformers.AutoModel.from_pretrained(folder).eval()
    encoded = ours.tokenizer.encode(texts, max_tokens=256)
    lengths = [len(ids) for ids in encoded.ids]
    assert max(lengths) > 5 * min(lengths)
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in encoded.ids], batch_first=True)
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    real = mask.bool()
    with torch.no_grad():
        got, want = ours(ids, attention_mask=mask), theirs(ids, attention_mask=mask)
    for a, b in ((got.hidden[real], want.last_hidden_state[real]), (got.pooled, want.pooler_output)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * max(1.0, b.abs().max().item()))

    ts.save(ours, tmp_path)
    again, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
