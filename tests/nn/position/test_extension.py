"""Stretched RoPE against the papers' formulas, written again in numpy."""

import math

import numpy as np
import pytest
import torch

from tunesmith.base.layout import make_layout
from tunesmith.nn.position.rope import RoPE, RoPEConfig

WIDTH, THETA, ORIGINAL = 16, 500.0, 64
LENGTH = 200


def turns(extension, *, lengths=(LENGTH,), positions=None):
    """Cosines and sines, (N, F)."""
    encoding = RoPE(width=WIDTH, theta=THETA, extension=RoPEConfig(extension=extension).extension)
    layout = make_layout(list(lengths), positions=positions)
    state = encoding.prepare(layout, torch.zeros(1, dtype=torch.float64))
    return state.cos[:, 0].numpy(), state.sin[:, 0].numpy()


def plain(base=THETA):
    return np.array([base ** (-2 * i / WIDTH) for i in range(WIDTH // 2)])


def assert_turns(found, frequencies, *, length=LENGTH, amplitude=1.0):
    angles = np.arange(length)[:, None] * frequencies
    np.testing.assert_allclose(found[0], amplitude * np.cos(angles), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found[1], amplitude * np.sin(angles), rtol=0, atol=1e-10)


def test_none_is_plain():
    assert_turns(turns(None), plain())


@pytest.mark.parametrize("factor", [1.0, 2.5, 8.0])
def test_linear_is_positions_divided_by_the_factor(factor):
    assert_turns(turns({"kind": "linear", "factor": factor}), plain() / factor)


def test_linear_gives_the_stretched_positions_the_very_turns_of_training():
    stretched = turns({"kind": "linear", "factor": 4.0}, positions=4 * torch.arange(LENGTH))
    for found, want in zip(stretched, turns(None), strict=True):
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0])
def test_ntk_enlarges_the_base(factor):
    frequencies = plain(THETA * factor ** (WIDTH / (WIDTH - 2)))
    assert_turns(turns({"kind": "ntk", "factor": factor}), frequencies)
    assert frequencies[0] == 1  # the fastest stays,
    assert frequencies[-1] == pytest.approx(plain()[-1] / factor)  # the slowest is interpolated


def test_dynamic_follows_each_document_beyond_the_original_length():
    lengths = (ORIGINAL, 100, LENGTH)
    cos, sin = turns({"kind": "dynamic", "factor": 2.0, "original": ORIGINAL}, lengths=lengths)
    start = 0
    for length in lengths:
        base = THETA * (2.0 * length / ORIGINAL - 1) ** (WIDTH / (WIDTH - 2))
        part = slice(start, start + length)
        assert_turns((cos[part], sin[part]), plain(base), length=length)
        start += length


@pytest.mark.parametrize("length", [1, 30, ORIGINAL])
def test_dynamic_is_plain_within_the_original_length(length):
    found = turns({"kind": "dynamic", "factor": 3.0, "original": ORIGINAL}, lengths=(length,))
    for ours, want in zip(found, turns(None, lengths=(length,)), strict=True):
        np.testing.assert_array_equal(ours, want)


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(("fast", "slow"), [(32.0, 1.0), (8.0, 2.0)])
def test_yarn(fast, slow, truncate):
    factor, original = 4.0, 2048

    def dimension(turns):
        return WIDTH * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(THETA))

    low, high = dimension(fast), dimension(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, WIDTH - 1)
    ramp = np.array([min(1, max(0, (i - low) / (high - low))) for i in range(WIDTH // 2)])
    assert 0 < ramp.mean() < 1
    extension = {"kind": "yarn", "factor": factor, "original": original, "beta_fast": fast, "beta_slow": slow}
    found = turns({**extension, "truncate": truncate})
    assert_turns(found, plain() / factor * ramp + plain() * (1 - ramp), amplitude=0.1 * math.log(factor) + 1)


@pytest.mark.parametrize(("given", "amplitude"), [(None, 0.1 * math.log(8) + 1), (1.0, 1.0), (0.7, 0.7)])
def test_scores_under_yarn_have_the_square_of_the_amplitude(given, amplitude):
    cos, sin = turns({"kind": "yarn", "factor": 8.0, "original": ORIGINAL, "attention_factor": given})
    np.testing.assert_allclose(cos**2 + sin**2, amplitude**2)


def test_llama3():
    factor, low, high = 8.0, 1.0, 4.0
    wanted = []
    for frequency in plain():
        wavelength = 2 * math.pi / frequency
        if wavelength < ORIGINAL / high:
            wanted.append(frequency)
        elif wavelength > ORIGINAL / low:
            wanted.append(frequency / factor)
        else:
            smooth = (ORIGINAL / wavelength - low) / (high - low)
            wanted.append((1 - smooth) * frequency / factor + smooth * frequency)
    shares = np.array(wanted) / plain()
    assert shares[0] == 1
    assert shares[-1] == pytest.approx(1 / factor)
    assert ((shares > 1 / factor) & (shares < 1)).any()
    assert_turns(turns({"kind": "llama3", "factor": factor, "original": ORIGINAL}), np.array(wanted))
