"""Hook of the docs site: writes the reference of the shell commands from the program itself, at every build."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

PAGE = "reference/command-line.md"
PLACE = "<!-- commands -->"
COMMAND = (sys.executable, "-m", "typer", "fewshot_ad.cli", "utils", "docs", "--name", "fewshot-ad")
HEADING = re.compile(r"^#+ `(fewshot-ad[^`]*)`$")
LISTED = re.compile(r"^\* `([^`]+)`: ")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Put the commands, their arguments and options in their place on the page of the command line."""
    if page.file.src_uri != PAGE:
        return markdown
    if PLACE not in markdown:
        raise ValueError(f"expected {PLACE} in {PAGE}, where the commands belong; it is not there.")
    written = subprocess.run(COMMAND, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    written = whole_lines(written).replace("* `--help`: ", "* `-h, --help`: ")
    # The first heading is the program's name, and the page has one already.
    _, _, commands = written.partition("\n")
    return markdown.replace(PLACE, commands)


def whole_lines(written: str) -> str:
    """The reference with the whole first line of each command's help in the lists, which typer cuts off."""
    lines = written.splitlines()
    headings = {match[1]: at for at, line in enumerate(lines) if (match := HEADING.match(line))}
    command = ""
    for at, line in enumerate(lines):
        if heading := HEADING.match(line):
            command = heading[1]
        elif (listed := LISTED.match(line)) and f"{command} {listed[1]}" in headings:
            below = lines[headings[f"{command} {listed[1]}"] + 1 :]
            lines[at] = listed[0] + next(text for text in below if text)
    return "\n".join(lines) + "\n"
