import dataclasses

import pytest
import torch

from tunesmith.base.errors import SettingError
from tunesmith.base.layout import make_layout
from tunesmith.nn.position.rope import RoPE, RoPEConfig

PAIRS = pytest.mark.parametrize("adjacent", [False, True], ids=["halves", "adjacent"])


def turned(encoding, x, positions):
    """One vector at each of these positions."""
    positions = torch.as_tensor(positions)
    layout = make_layout([len(positions)], positions=positions)
    rows = x.expand(len(positions), 1, -1)
    return encoding.rotate(rows, encoding.prepare(layout, x))[:, 0]


@PAIRS
def test_scores_depend_on_distance_alone(adjacent, draw):
    encoding = RoPE(width=8, theta=10_000.0, adjacent=adjacent)
    query, key = draw(8), draw(8)
    shifts = torch.tensor([0, 1, 17, 500])
    for distance in (-9, 0, 1, 30):
        queries, keys = turned(encoding, query, shifts + 50), turned(encoding, key, shifts + 50 + distance)
        found = (queries * keys).sum(1)
        torch.testing.assert_close(found, found[:1].expand(4), rtol=0, atol=1e-11)
    assert (turned(encoding, query, [0])[0] @ turned(encoding, key, [3])[0]) != query @ key


@PAIRS
def test_the_angles_of_the_paper(adjacent, draw):
    """Equation 15: pair i turns by position * theta^(-2 i / d)."""
    encoding, x = RoPE(width=8, theta=100.0, adjacent=adjacent), draw(8)
    found = turned(encoding, x, [3])[0]
    for i in range(4):
        first, second = (2 * i, 2 * i + 1) if adjacent else (i, i + 4)
        angle = torch.tensor(3 * 100.0 ** (-2 * i / 8), dtype=torch.float64)
        want = torch.complex(x[first], x[second]) * torch.polar(torch.ones_like(angle), angle)
        torch.testing.assert_close(torch.complex(found[first], found[second]), want)


def test_the_pairings_are_permutations_of_each_other(draw):
    x = draw(10)
    order = torch.arange(10).view(5, 2).T.flatten()  # 0 2 4 6 8 1 3 5 7 9
    halves, adjacent = (RoPE(width=10, theta=10_000.0, adjacent=adjacent) for adjacent in (False, True))
    places = torch.arange(40)
    assert torch.equal(turned(halves, x[order], places), turned(adjacent, x, places)[:, order])


@PAIRS
def test_lengths_of_vectors_stay(adjacent, draw):
    x = draw(8)
    found = turned(RoPE(width=8, theta=10_000.0, adjacent=adjacent), x, torch.arange(300))
    torch.testing.assert_close(found.norm(dim=1), x.norm().expand(300))


def sums(width, count):
    """|S_1|, ..., |S_{d/2}| of section 3.4.3 for distances 0, 1, ..., from the angles that the module makes."""
    encoding = RoPE(width=width, theta=10_000.0)
    state = encoding.prepare(make_layout([count]), torch.zeros(1, dtype=torch.float64))
    return torch.complex(state.cos, state.sin)[:, 0].cumsum(1).abs()


def test_the_bound_of_scores_decays_with_distance():
    """RoFormer section 3.4.3, figure 2: the mean of |S_j| over distances up to 250, for d = 128."""
    bound = sums(128, 256).mean(1)
    by_distance = bound.view(8, 32).mean(1)
    assert (by_distance.diff() < 0).all()
    assert bound.argmax() == 0
    assert by_distance[-1] < 0.4 * bound[0]


def test_scores_keep_to_that_bound(draw):
    """|score| <= max |h_{i+1} - h_i| * sum |S_j|, with h_i = q_i conj(k_i) and h_{d/2} = 0 (Abel's transformation)."""
    encoding = RoPE(width=32, theta=10_000.0, adjacent=True)
    query, key = draw(32), draw(32)
    score = turned(encoding, query, torch.arange(100)) @ turned(encoding, key, [0])[0]
    pairs = torch.view_as_complex(query.view(16, 2)) * torch.view_as_complex(key.view(16, 2)).conj()
    steps = torch.cat([pairs, pairs.new_zeros(1)]).diff().abs().max()
    assert (score.abs() <= steps * sums(32, 100).sum(1)).all()


@PAIRS
def test_a_fraction_turns_as_a_narrower_head_and_the_rest_stays(adjacent, sizes, draw):
    pairs = "adjacent" if adjacent else "halves"
    config = RoPEConfig(fraction=0.25, pairs=pairs)
    encoding = config.build(dataclasses.replace(sizes, d_head=16))
    assert encoding.width == 4
    x, places = draw(16), torch.arange(20)
    found = turned(encoding, x, places)
    assert torch.equal(found[:, 4:], x[4:].expand(20, -1))
    assert torch.equal(found[:, :4], turned(RoPE(width=4, theta=10_000.0, adjacent=adjacent), x[:4], places))
    assert not torch.equal(found[1:, :4], found[:-1, :4])


def test_an_odd_width_is_refused(sizes):
    with pytest.raises(SettingError, match="width of a head must be even, got 3"):
        RoPEConfig().build(dataclasses.replace(sizes, d_head=3))
    with pytest.raises(SettingError, match="ntk needs heads wider than 2"):
        RoPEConfig(extension={"kind": "ntk", "factor": 2}).build(dataclasses.replace(sizes, d_head=2))


def test_positions_are_counted_in_fp32_for_bf16_heads():
    """In bf16 position 257 would be 256."""
    encoding = RoPE(width=4, theta=10_000.0)
    layout = make_layout([300])
    narrow, wide = (encoding.prepare(layout, torch.zeros(1, dtype=t)) for t in (torch.bfloat16, torch.float32))
    assert narrow.cos.dtype == torch.bfloat16
    assert torch.equal(narrow.cos, wide.cos.bfloat16())
    assert not torch.equal(narrow.cos[256], narrow.cos[257])
