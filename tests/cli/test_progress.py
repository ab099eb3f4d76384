import os
from types import SimpleNamespace

import pytest

from tunesmith.cli import progress
from tunesmith.report.sparkline import BLOCKS


class Terminal:
    def __init__(self, encoding, terminal):
        self.encoding, self._terminal, self.text = encoding, terminal, ""

    def isatty(self):
        return self._terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def shown(monkeypatch, *, encoding="utf-8", terminal=True, columns=140):
    """What a run with three looks at the dev split prints at its end."""
    stream = Terminal(encoding, terminal)
    monkeypatch.setattr(progress.sys, "stderr", stream)
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    curve = [{"dev_loss": loss} for loss in (5.0, None, 3.0)]
    now = SimpleNamespace(step=30, tokens=900, seconds=3.0, curve=curve, best=None, last_loss=2.5, done=True)
    progress.make_listener().step(now, 1.0)
    return stream.text


def test_a_terminal_shows_the_dev_losses_so_far(monkeypatch):
    assert shown(monkeypatch).endswith("dev loss 3.0000 █ ▁\n")


@pytest.mark.parametrize("options", [{"encoding": "ascii"}, {"encoding": None}, {"terminal": False}])
def test_no_blocks_where_they_cannot_be_read(monkeypatch, options):
    text = shown(monkeypatch, **options)
    assert "dev loss 3.0000" in text
    assert not set(BLOCKS) & set(text)


def test_the_line_is_overwritten_so_it_must_not_wrap(monkeypatch):
    for columns in (80, 90, 120):
        line = shown(monkeypatch, columns=columns).removeprefix("\r\x1b[2K").rstrip("\n")
        assert len(line) < columns
        assert "step 30, 100%, loss 2.5000" in line
