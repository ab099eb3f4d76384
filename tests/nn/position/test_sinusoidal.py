import math

import pytest
import torch

from tunesmith.base.layout import make_layout
from tunesmith.nn.position.sinusoidal import Sinusoidal, SinusoidalConfig

WIDTH = 12


def table(count, **fields):
    """PE(0), PE(1), ..."""
    encoding = Sinusoidal(width=WIDTH, **fields)
    return encoding.embed(torch.zeros(count, WIDTH, dtype=torch.float64), make_layout([count]))


def test_the_formula_of_the_paper():
    found = table(40)
    for p in (0, 1, 7, 39):
        for i in range(WIDTH // 2):
            angle = p / 10_000 ** (2 * i / WIDTH)
            assert found[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert found[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_values_by_hand():
    encoding = Sinusoidal(width=4)
    found = encoding.embed(torch.zeros(2, 4), make_layout([2]))
    torch.testing.assert_close(found, torch.tensor([[0, 1, 0, 1], [0.841471, 0.540302, 0.0099998, 0.99995]]))


@pytest.mark.parametrize("k", [1, 5, 23])
def test_a_step_of_k_is_one_rotation_wherever_it_begins(k):
    found = table(100)
    turn = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    for i in range(WIDTH // 2):
        angle = k * 10_000 ** (-2 * i / WIDTH)
        cos, sin = math.cos(angle), math.sin(angle)
        turn[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    torch.testing.assert_close(turn @ turn.T, torch.eye(WIDTH, dtype=torch.float64))
    torch.testing.assert_close(found[k:], found[:-k] @ turn.T, rtol=0, atol=1e-12)


def test_halves_are_the_same_numbers_in_another_order():
    assert torch.equal(table(30, halves=True), torch.cat([table(30)[:, 0::2], table(30)[:, 1::2]], 1))


def test_positions_begin_anew_in_each_document(sizes):
    encoding = SinusoidalConfig().build(sizes)
    found = encoding.embed(torch.zeros(8, 12), make_layout([3, 5]))
    assert torch.equal(found[:3], found[3:6])
    assert not found[6].equal(found[0])
