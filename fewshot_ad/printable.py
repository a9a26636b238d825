"""Text of unknown origin, as names of files and categories are, made harmless for a terminal, a table or a record."""

from __future__ import annotations

import unicodedata

# Control characters, what stands for bytes that are no UTF-8, and the two separators of lines.
_ESCAPED = frozenset({"Cc", "Cs", "Zl", "Zp"})
# They turn the order in which what follows is shown.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# What a spreadsheet takes for the beginning of a formula; the last four are the wide signs of East Asian keyboards.
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str) -> str:
    r"""Text on one line that changes nothing but the place it is printed at, and can be encoded as UTF-8.

    Control characters (ESC and newlines among them), characters that reorder text, and the bytes of a file name that is
    no UTF-8 become escapes as Python writes them: `\x1b`, `\n`, `\xff`. All other text stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(_escape(letter) if _is_harmful(letter) else letter for letter in text)


def no_formula(cell: str) -> str:
    """A cell of a table, led by an apostrophe where a spreadsheet would run it; a negative number stays one."""
    if not cell.startswith(_FORMULA_STARTS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _is_harmful(letter: str) -> bool:
    return unicodedata.category(letter) in _ESCAPED or letter in _REORDERING


def _escape(letter: str) -> str:
    if letter in _SHORT:
        return _SHORT[letter]
    code = ord(letter)
    # How Python's file functions write a byte that is no UTF-8.
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
