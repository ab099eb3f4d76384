import math

import pytest
import torch

from tunesmith.nn.position.transformer_xl import TransformerXLConfig


def wave(distance):
    """All sines, then all cosines, of a distance that may be negative."""
    angles = [distance / 10_000 ** (2 * i / 12) for i in range(6)]
    return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles], dtype=torch.float64)


@pytest.mark.parametrize("segments", [False, True])
def test_terms_by_loops(segments, sizes, randomised, heads, scores, draw):
    encoding = randomised(TransformerXLConfig(segments=segments).build(sizes))
    query, key = heads
    kinds = (draw(32) > 0).long()
    want = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    for i in range(16):
        for j in range(16):
            position = (encoding.project.weight @ wave(i - j)).view(3, 4)
            want[:, :, i, j] = (key[:, :, j] * encoding.content_bias).sum(-1)
            want[:, :, i, j] += ((query[:, :, i] + encoding.position_bias) * position).sum(-1)
            for g in range(2 if segments else 0):
                differ = int(kinds[16 * g + i] != kinds[16 * g + j])
                asked = query[g, :, i] + encoding.segment_bias
                want[g, :, i, j] += (asked * encoding.segment[differ]).sum(-1)
    found = scores(encoding, query, key, scale=0.3, segments=kinds)
    torch.testing.assert_close(found, 0.3 * want)


def test_without_segments_there_are_no_weights_for_them(sizes):
    names = {name for name, _ in TransformerXLConfig().build(sizes).named_parameters()}
    assert names == {"project.weight", "content_bias", "position_bias"}
