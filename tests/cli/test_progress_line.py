from hypothesis import given
from hypothesis import strategies as st

from tunesmith.cli.progress_line import BAR, CURVE, progress_line
from tunesmith.report.sparkline import BLOCKS


def test_a_wide_terminal_shows_bar_text_and_curve():
    line = progress_line("step 5", spent=0.5, losses=[4.0, 3.0, None, 1.0], columns=120)
    assert line == f"[{'#' * 12}{'.' * 12}] step 5 █▆ ▁"


def test_one_loss_makes_no_curve():
    for losses in ([], [3.0]):
        assert progress_line("step 5", spent=1.0, losses=losses, columns=120) == f"[{'#' * BAR}] step 5"


def test_many_losses_stay_narrow():
    line = progress_line("step 5", spent=0.0, losses=[1.0 / (i + 1) for i in range(1000)], columns=120)
    assert sum(character in BLOCKS for character in line) == CURVE


@given(
    columns=st.integers(0, 200),
    spent=st.floats(0, 1),
    losses=st.lists(st.none() | st.floats(allow_nan=True), max_size=40),
)
def test_the_line_never_wraps(columns, spent, losses):
    text = "step 5, loss 1.0"
    line = progress_line(text, spent=spent, losses=losses, columns=columns)
    assert text[: max(columns - 1, 0)] in line
    assert len(line) <= max(columns - 1, 0)
