import pytest
import torch

from tunesmith.nn.linear import Linear
from tunesmith.nn.position.disentangled import DisentangledConfig, log_buckets

GOLDEN = {0: 0, 1: 1, 127: 127, 128: 128, 129: 129, 200: 169, 256: 192, 400: 233, 511: 255}


@pytest.mark.parametrize("sign", [1, -1])
def test_buckets_of_the_reference(sign):
    distances = torch.tensor(list(GOLDEN)) * sign
    found = log_buckets(distances, num_buckets=256, max_distance=512)
    assert dict(zip(GOLDEN, (found * sign).tolist(), strict=True)) == GOLDEN


@pytest.mark.parametrize("buckets", [0, 4])
@pytest.mark.parametrize("terms", ["both", "c2p", "p2c"])
def test_terms_by_loops(terms, buckets, sizes, randomised, heads, scores):
    """c2p: q_i . W_k r[b(i - j)]; p2c: k_j . W_q r[b(i - j)]; rows are clamped to the 2 k of the table."""
    config = DisentangledConfig(num_buckets=buckets, max_distance=9, terms=terms)
    encoding = randomised(config.build(sizes))
    to_query, to_key = (randomised(Linear(12, 12)) for _ in range(2))
    query, key = heads
    span = buckets or 9
    assert encoding.weight.shape == (2 * span, 12)
    table = torch.nn.functional.layer_norm(encoding.weight, (12,), encoding.norm.weight, encoding.norm.bias, 1e-7)
    want = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    for i in range(16):
        for j in range(16):
            row = torch.tensor([i - j])
            row = log_buckets(row, num_buckets=buckets, max_distance=9) if buckets else row
            vector = table[max(0, min(2 * span - 1, int(row) + span))]
            if terms != "p2c":
                want[:, :, i, j] += (query[:, :, i] * to_key(vector).view(3, 4)).sum(-1)
            if terms != "c2p":
                want[:, :, i, j] += (key[:, :, j] * to_query(vector).view(3, 4)).sum(-1)
    found = scores(encoding, query, key, to_query=to_query, to_key=to_key, scale=0.3)
    torch.testing.assert_close(found, 0.3 * want)


@pytest.mark.parametrize(("terms", "parts"), [("both", 3), ("c2p", 2), ("p2c", 2), ("none", 1)])
def test_scores_are_scaled_by_the_number_of_their_terms(terms, parts):
    assert DisentangledConfig(terms=terms).scale(64) == pytest.approx((64 * parts) ** -0.5)


def test_own_projections_are_those_of_the_terms():
    own = {terms: DisentangledConfig(terms=terms, projections="own").own_projections for terms in ("both", "c2p")}
    assert own == {"both": "both", "c2p": "key"}
    assert DisentangledConfig().own_projections == "none"
