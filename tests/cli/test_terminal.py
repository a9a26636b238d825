"""How far long work is, where standard error is a file."""

from __future__ import annotations

import pytest

from fewshot_ad.cli import terminal


def test_a_log_file_shows_how_far_long_work_is(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.progress_bar(quiet=False) as progress:
        assert progress is not None
        for done in range(1, 5):
            now += 7.5
            progress("train", done, 10)
    out, err = capfd.readouterr()
    assert out == ""
    # Lines are at least 10 seconds apart.
    assert err == "train: 2 of 10, about 0:01:00 left\ntrain: 4 of 10, about 0:00:45 left\n"


def test_short_work_and_json_are_silent(capfd: pytest.CaptureFixture) -> None:
    with terminal.progress_bar(quiet=False) as progress:
        assert progress is not None
        progress("embed", 1, 1)
    with terminal.progress_bar(quiet=True) as progress:
        assert progress is None
    with terminal.progress_bar(quiet=False, lines=False) as progress:
        assert progress is None
    assert capfd.readouterr() == ("", "")
