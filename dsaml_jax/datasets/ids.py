"""Canonical ids of songs and annotators."""

from __future__ import annotations

import re
import unicodedata

MISSING = ("", "nan", "na", "n/a", "#n/a", "null", "none", "nat", "<na>")
"""Markers of missing values, compared without regard to case."""

_EXCEL_TEXT = re.compile(r'="(.*)"', re.DOTALL)
_INTEGER = re.compile(r"\+?(\d+)(\.0*)?", re.ASCII)


def plain_id(value: object) -> str:
    """Returns an id in its canonical form; "" if it is missing or cannot be an id.

    Surrounding blanks are removed, and so are leading zeros and decimals of whole numbers: 7, "07"
    and "7.0" are the same id. ="7" is how Excel exports the text "7". Text that is not printable
    cannot be an id.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if value is None or isinstance(value, list | tuple | dict):
        return ""
    text = unicodedata.normalize("NFC", str(value).strip())
    quoted = _EXCEL_TEXT.fullmatch(text)
    if quoted:
        text = quoted[1].strip()
    if text.lower() in MISSING or not text.isprintable():
        return ""
    integer = _INTEGER.fullmatch(text)
    return (integer[1].lstrip("0") or "0") if integer else text
