"""Hook of the docs site: writes the reference of the shell commands from the program itself, at every build."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

PAGE = "reference/command-line.md"
PLACE = "<!-- commands -->"
COMMAND = (sys.executable, "-m", "typer", "fewshot_ad.cli", "utils", "docs", "--name", "fewshot-ad")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Put the commands, their arguments and options in their place on the page of the command line."""
    if page.file.src_uri != PAGE:
        return markdown
    if PLACE not in markdown:
        raise ValueError(f"expected {PLACE} in {PAGE}, where the commands belong; it is not there.")
    written = subprocess.run(COMMAND, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    # The first heading is the program's name, and the page has one already.
    _, _, commands = written.partition("\n")
    return markdown.replace(PLACE, commands)
