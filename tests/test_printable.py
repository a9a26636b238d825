from __future__ import annotations

import os

import pytest

from fewshot_ad.cli.terminal import report_failure, say
from fewshot_ad.errors import ImageError
from fewshot_ad.images import read_image
from fewshot_ad.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("good/000.png", "good/000.png"),
        ("Größe, 良品 \u3000, e\u0301, 👩\u200d🔧, C:\\parts", None),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\nb\r\tc\x00", r"a\nb\r\tc\x00"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\u2028b\u202egnp.exe", r"a\u2028b\u202egnp.exe"),
        (os.fsdecode(b"bad\xff\xfe.png"), r"bad\xff\xfe.png"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_is_shown(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)
    printable(text).encode()


def test_what_commands_print_is_one_line_without_commands_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x\x1b[1A\ngood      severity  0.00  \udcff[bold]y[/bold].png"
    say(name)
    report_failure(f"{name}: cannot be read", as_json=False)
    printed = capsys.readouterr()
    assert printed.out == r"x\x1b[1A\ngood      severity  0.00  \xff[bold]y[/bold].png" + "\n"
    assert printed.err == r"error: x\x1b[1A\ngood      severity  0.00  \xff[bold]y[/bold].png: cannot be read" + "\n"


def test_an_error_about_a_file_can_be_printed() -> None:
    for name in ("a\udcff.png", "a\0.png", "a\x1b[2J\n.png"):
        with pytest.raises(ImageError) as caught:
            read_image(name)
        text = str(caught.value)
        assert text.startswith(printable(name))
        assert text.encode()
        assert text.isprintable()
