"""Text from anywhere, made safe to stand in a page."""

from __future__ import annotations

import html
import json
import re
from typing import Any

# A parser would drop or replace these anyway, each in its own way; lone surrogates cannot be encoded at all.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    r"""``text`` without what cannot be shown: control characters and lone surrogates become U+FFFD, and lines end in ``\\n``."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def escape(text: object) -> str:
    """``text`` as HTML, between tags or as a quoted attribute."""
    return html.escape(clean(str(text)), quote=True)


def embed(value: Any) -> str:
    """``value`` as JSON that can stand inside a ``<script>`` element: nothing in it can end the element or open another.

    Numbers that are not finite become ``null``, which JSON has.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {clean(str(k)): _finite(v) for k, v in value.items()}
        case list() | tuple():
            return [_finite(v) for v in value]
        case str():
            return clean(value)
        case float():
            return value if abs(value) < float("inf") else None
    return value
