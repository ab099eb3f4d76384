"""What every schedule promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base import choices
from tunesmith.train.schedule import Moment

LANDS = {  # name: where it ends after a warm-up of a tenth
    "constant": 1.0,
    "cosine": 0.0,
    "inverse_sqrt": 0.1**0.5,
    "linear": 0.0,
    "polynomial": 0.0,
    "wsd": 0.0,
}
MORE = {
    "cosine_to_floor": ({"name": "cosine", "floor": 0.1}, 0.1),
    "inverse_sqrt_to_zero": ({"name": "inverse_sqrt", "landing": "zero"}, 0.0),
    "late": ({"name": "polynomial", "power": 0.5, "floor": 0.2}, 0.2),
    "wsd_linear": ({"name": "wsd", "shape": "linear", "decay": 0.3}, 0.0),
    "wsd_cosine": ({"name": "wsd", "shape": "cosine", "decay": 1.0}, 0.0),
}
EVERY = {name: (choices.choose("schedule", name), LANDS[name]) for name in choices.names("schedule")} | {
    name: (choices.choose("schedule", value), end) for name, (value, end) in MORE.items()
}
SHARES = st.floats(0, 1)
WARMUPS = st.floats(1e-6, 1, exclude_max=True)


@pytest.mark.parametrize("name", EVERY)
@given(share=SHARES, warmup=WARMUPS)
def test_within_zero_and_one(name, share, warmup):
    assert 0 <= EVERY[name][0].factor(Moment(share, warmup)) <= 1


@pytest.mark.parametrize("name", EVERY)
@given(part=SHARES, warmup=WARMUPS)
def test_warms_up_linearly(name, part, warmup):
    share = part * warmup
    assert EVERY[name][0].factor(Moment(share, warmup)) == pytest.approx(share / warmup, abs=1e-9)


@pytest.mark.parametrize("name", EVERY)
@given(share=SHARES)
def test_has_no_jumps(name, share):
    """A root may be steep where it begins, so the bound is that of a root: ten thousandths for a millionth of a run."""
    config = EVERY[name][0]
    for width in (1e-6, 1e-10):
        before, after = (config.factor(Moment(x, 0.1)) for x in (share, min(1.0, share + width)))
        assert abs(after - before) <= 10 * width**0.5


@pytest.mark.parametrize("name", EVERY)
@given(a=SHARES, b=SHARES, warmup=WARMUPS)
def test_never_rises_behind_the_warmup(name, a, b, warmup):
    a, b = sorted((max(a, warmup), max(b, warmup)))
    config = EVERY[name][0]
    assert config.factor(Moment(b, warmup)) <= config.factor(Moment(a, warmup)) + 1e-12


@pytest.mark.parametrize("name", EVERY)
def test_lands_where_it_promises(name):
    config, end = EVERY[name]
    assert config.factor(Moment(1.0, 0.1)) == pytest.approx(end, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in EVERY if not name.startswith("inverse_sqrt")])
def test_begins_at_the_peak_without_a_warmup(name):
    assert EVERY[name][0].factor(Moment(0.0, 0.0)) == 1
