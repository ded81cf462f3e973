"""One spelling for everything: characters, markup, tables and escapes, so that the tokens need to know only one of
each."""

from __future__ import annotations

import re

__all__ = ["clean", "hide_query"]

_SPELLINGS = {
    "-": "‐‑‒–—―−﹘﹣－➖⁃",
    "~": "～〜∼∿˜",
    " -> ": "→⇒➔➜⟶⟹➡↦",
    "'": "’‘‛′＇´",
    '"': "“”„‟″＂«»「」『』",
    "...": "…",
    ":": "：∶︰",
    ", ": "，、",
    ". ": "。｡",
    "; ": "；",
    "(": "（【〔［｛",
    ")": "）】〕］｝",
    " ": "\t\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000≈≃≅",
    "\n": "\r\v\f\u0085\u2028\u2029",
    "": "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\ufe0e\ufe0f",
}
_FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_TRANSLATION = _FULL_WIDTH | {ord(c): plain for plain, characters in _SPELLINGS.items() for c in characters}

_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\u201[0-5]|&[nm]dash;|&#821[12];", "-"),  # escapes of JSON and HTML
        (r"\\u3c|&lt;", "<"),
        (r"\\u3e|&gt;", ">"),
        (r"&nbsp;|&quot;", " "),
        (r"\\n", "\n"),
        (r'\\"', '"'),
        (r"\\(?:text|mathrm|textbf|mathbf) ?\{ ?([a-z0-9.: -]{0,40}) ?\}", r" \1"),  # LaTeX
        (r"\\(?:f?box|boxed)\b|<\|begin_of_box\|>", " answer: "),
        (r"\\(?:to|rightarrow|longrightarrow)\b", " -> "),
        (r"\\(?:approx|sim|quad|,|;|!)", " "),
        (r"\$([^$\n]{1,80})\$(?![0-9])", r" \1 "),
        (r"\\([-~_*\[\](){}|])", r"\1"),
        (r"</?(?:b|i|em|strong|br|p|li|ul|ol|span|code|time|timestamp|timestamps|s|e) ?/?>", " "),  # HTML
        (r"<\|[a-z0-9_]{1,30}\|>|</[a-z_]{1,20}>", " "),
        (r"```(?:[a-z]{0,10}\n)?|`", ""),  # Markdown
        (r"\*{1,3}(?![0-9])|(?<![0-9])\*{1,3}|(?<![a-z0-9])__|__(?![a-z0-9])", ""),
    )
)

_ENUMERATOR = re.compile(r"^ ?(?:[-•] )?\(?[0-9]{1,2}[.)] (?! ?(?:[-~]|to\b|and\b|sec|s\b))", re.MULTILINE)
_CELL_START = re.compile(r"^(?:start|begin|from)")
_CELL_END = re.compile(r"^(?:end|stop|finish|to\b)")


def clean(text: str) -> str:
    """``text`` in lower case, one kind of dash, tilde, quote and space, without markup, single spaces, lines kept."""
    text = text.translate(_TRANSLATION).lower()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    lines = [" ".join(line.split()) for line in text.split("\n")]
    if "|" in text:
        lines = _read_tables(lines)
    return _ENUMERATOR.sub("- ", "\n".join(line for line in lines if line))


def _read_tables(lines: list[str]) -> list[str]:
    """Markdown tables with a start and an end column, each row as ``start …, end …``; other lines as they are."""
    read: list[str] = []
    columns: tuple[int, int] | None = None
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")] if "|" in line else []
        if not cells:
            columns = None
        elif not line.strip("|:- "):
            continue
        elif columns and len(cells) > max(columns):
            line = f"start {cells[columns[0]]}, end {cells[columns[1]]}"
        elif not any(c.isdigit() for c in line):
            starts = [i for i, cell in enumerate(cells) if _CELL_START.match(cell)]
            ends = [i for i, cell in enumerate(cells) if _CELL_END.match(cell)]
            columns = (starts[0], ends[0]) if starts and ends else None
        read.append(line)
    return read


def hide_query(text: str, query: str) -> str:
    """Cleaned ``text`` with every echo of a cleaned ``query`` replaced by the words it stands for.

    A single word is left alone unless it has both letters and digits: it may be a word of the answer itself.
    """
    query = query.strip(" .'\"?!")
    letters, digits = any(map(str.isalpha, query)), any(map(str.isdigit, query))
    if not letters or not (" " in query or digits or not query.isascii()):
        return text
    return re.sub(rf"(?<![a-z0-9_.]){re.escape(query)}(?![a-z0-9_]|\.[0-9])", " the event ", text)
