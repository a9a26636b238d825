"""A page in one file that loads nothing: what the report and the journal's export are."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterable
from importlib import resources

from fewshot_ad.line.charts import text_of

# By what a page is known again, and may be replaced.
MARK = '<meta name="generator" content="fewshot-ad report">'


def document(title: str, about: str, body: Iterable[str]) -> str:
    """A page as HTML.

    Args:
        title: Headline.
        about: What it is of; stands below the headline, with the time.
        body: HTML; what is not ours in it went through `charts.text_of`.
    """
    style = resources.files("fewshot_ad.line").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    headline = text_of(title)
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    parts = [
        f"<header><h1>{headline}</h1>",
        f'<p class="faint">{text_of(about)}, written {now}</p></header>',
        "<main>",
        *body,
        "</main>",
    ]
    joined = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{MARK}\n"
        # The page may show its own pictures and use this style and nothing else, whatever is in the data.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{headline}</title>\n<style>{style}</style>\n</head>\n<body>\n{joined}\n</body>\n</html>\n"
    )


def tile(kind: str, words: str, count: int, total: int) -> str:
    """A count and its share, as an item of the list `tiles`."""
    share = f"{count / total:.1%}" if total else ""
    return f'<li class="{kind}"><b>{count}</b>{text_of(words)} <small>{share}</small></li>'
