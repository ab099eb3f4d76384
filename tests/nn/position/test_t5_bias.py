import dataclasses

import pytest
import torch

from tunesmith.nn.position.t5_bias import T5BiasConfig, buckets

BOTH = {-1: 1, 0: 0, 1: 17, 7: 23, 8: 24, 15: 25, 16: 26, 64: 30, 128: 31, 9999: 31, -8: 8, -16: 10, -64: 14}
CAUSAL = {0: 0, 1: 0, 99: 0, -1: 1, -15: 15, -16: 16, -31: 21, -64: 26, -113: 31, -9999: 31}


@pytest.mark.parametrize(("golden", "causal"), [(BOTH, False), (CAUSAL, True)], ids=["both", "causal"])
def test_buckets_of_the_reference(golden, causal):
    found = buckets(torch.tensor(list(golden)), num_buckets=32, max_distance=128, causal=causal)
    assert dict(zip(golden, found.tolist(), strict=True)) == golden


@pytest.mark.parametrize("causal", [False, True])
def test_buckets_never_fall_with_distance_and_all_occur(causal):
    away = torch.arange(300)
    found = buckets(-away, num_buckets=32, max_distance=128, causal=causal)
    assert (found.diff() >= 0).all()
    assert found.unique().tolist() == list(range(32 if causal else 16))


@pytest.mark.parametrize("causal", [False, True])
def test_the_bias_is_a_number_for_head_and_bucket(causal, sizes, randomised, heads, scores):
    config = T5BiasConfig(num_buckets=8, max_distance=12)
    encoding = randomised(config.build(dataclasses.replace(sizes, causal=causal)))
    found = scores(encoding, *heads, scale=0.3)  # the scale is none of its business
    for i in range(16):
        for j in range(16):
            row = buckets(torch.tensor([j - i]), num_buckets=8, max_distance=12, causal=causal)
            assert torch.equal(found[1, :, i, j], encoding.weight[row[0]])
