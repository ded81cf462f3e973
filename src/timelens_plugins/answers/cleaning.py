"""One spelling for everything: characters, markup, tables and escapes, so that the tokens need to know only one of
each."""

from __future__ import annotations

import re

__all__ = ["clean", "hide_query", "spell_shares"]

_SPELLINGS = {
    "-": "‐‑‒–—―−﹘﹣－➖⁃",
    "~": "～〜∼∿˜",
    " -> ": "→⇒➔➜⟶⟹➡↦",
    "'": "’‘‛′＇´",
    '"': "“”„‟″＂«»「」『』",
    "...": "…",
    "<=": "≤⩽≦",
    ":": "：∶︰",
    ", ": "，、",
    ". ": "。｡",
    "; ": "；",
    "(": "（【〔［｛",
    ")": "）】〕］｝",
    " ": "\t\x1c\x1d\x1e\x1f≈≃≅"
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000",
    "\n": "\r\v\f\u0085\u2028\u2029",
    "": "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\ufe0e\ufe0f",
}
_FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_TRANSLATION = _FULL_WIDTH | {ord(c): plain for plain, characters in _SPELLINGS.items() for c in characters}

_REWRITES: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (trigger, re.compile(pattern), replacement)
    for trigger, pattern, replacement in (
        ("\\u", r"\\u201[0-5]", "-"),  # escapes of JSON and HTML
        ("\\u", r"\\u3c", "<"),
        ("\\u", r"\\u3e", ">"),
        ("&", r"&[nm]dash;|&#821[12];", "-"),
        ("&", "&lt;", "<"),
        ("&", "&gt;", ">"),
        ("&", r"&nbsp;|&quot;", " "),
        ("\\", r"\\n", "\n"),
        ("\\", r'\\"', '"'),
        ("10^", r"(?<=[0-9]) ?(?:x|×|\*|\\times) ?10\^\{?([+-]?[0-9]{1,2})\}?", r"e\1"),
        # LaTeX
        ("\\", r"\\(?:text|mathrm|textbf|mathbf) ?\{ ?([a-z0-9.: -]{0,40}) ?\}", r" \1"),
        ("\\", r"\\(?:f?box|boxed)\b", " answer: "),
        ("<|", r"<\|begin_of_box\|>", " answer: "),
        ("\\", r"\\(?:to|rightarrow|longrightarrow)\b", " -> "),
        ("\\", r"\\(?:approx|sim|quad|,|;|!)", " "),
        ("\\", r"\\leq?(?:slant)?\b", "<="),
        ("$", r"\$([^$\n]{1,80})\$(?![0-9])", r" \1 "),
        ("\\", r"\\([-~_*\[\](){}|])", r"\1"),
        # inequalities
        ("<", r"(?<=[0-9s]) ?<=? ?t ?<=? ?(?=[0-9])", " to "),
        ("<", r"\bt ?<=? ?(?=[0-9])", "end "),
        (">", r"\bt ?>=? ?(?=[0-9])", "start "),
        # a share of the clip, with the time that it is
        (
            "%",
            r"[0-9]{1,3}(?:\.[0-9]{1,6})? ?% ?"
            r"\((?:at |about |~ ?)?([0-9]{1,4}(?:\.[0-9]{1,6})? ?(?:s|secs?|seconds?)|[0-9]{1,3}:[0-5][0-9])\)",
            r"\1",
        ),
        # HTML and special tokens
        ("<", r"</?(?:b|i|em|strong|br|p|li|ul|ol|span|code|time|timestamp|timestamps|s|e) ?/?>", " "),
        ("<", r"<\|[a-z0-9_]{1,30}\|>|</[a-z_]{1,20}>", " "),
        # Markdown
        ("~~", r"(?<![0-9s])~~(?![ ~])[^~\n]{1,80}(?<! )~~(?![0-9])", ""),
        ("`", r"```(?:[a-z]{0,10}\n)?|`", ""),
        ("*", r"\*{1,3}(?![0-9])|(?<![0-9])\*{1,3}", ""),
        ("__", r"(?<![a-z0-9])__|__(?![a-z0-9])", ""),
    )
)
"""What is spelt otherwise, each with a text without which there is none: most answers have none of it."""

_ODD = re.compile(r"[\\&$<`*_^%~]")
_SPACED_DECIMALS = (
    (re.compile(r"(?<=[0-9]) \. ?(?=[0-9])"), "."),  # 12 .5
    (re.compile(r"([0-9]{1,5})\. ([0-9]{1,2} ?(?:-|~|to) ?[0-9]{1,5}\.) (?=[0-9]{1,2}\b)"), r"\1.\2"),  # 12. 5 - 17. 0
)
# Each begins with what it is found by.
_POINT_AFTER_SPACE = re.compile(r" \.(?<=[0-9] \.)")
_POINT_BEFORE_SPACE = re.compile(r"\. (?<=[0-9]\. )[0-9]")
_COMMA_WITHIN = re.compile(r",(?<=[0-9],)[0-9]")
_CAMEL_CASE = re.compile(r"([A-Z])(?<=[a-z][A-Z])")
_ENUMERATOR = re.compile(r" ?(?:[-•] )?\(?[0-9]{1,2}[.)] (?! ?(?:[-~]|to\b|and\b|sec|s\b))")
_CELL_START = re.compile(r"(?:start|begin|from)")
_CELL_END = re.compile(r"(?:end|stop|finish|to\b)")


def clean(text: str) -> str:
    """``text`` in lower case, one kind of dash, tilde, quote and space, without markup, single spaces, lines kept.

    Numbers have points for decimals and nothing between thousands; words written as one (``startTime``) have a ``_``.
    """
    text = _CAMEL_CASE.sub(r"_\1", text.translate(_TRANSLATION)).lower()
    if _ODD.search(text):
        for trigger, pattern, replacement in _REWRITES:
            if trigger in text:
                text = pattern.sub(replacement, text)
    odd_number = bool(_POINT_AFTER_SPACE.search(text) or _POINT_BEFORE_SPACE.search(text) or _COMMA_WITHIN.search(text))
    if odd_number:
        for pattern, replacement in _SPACED_DECIMALS:
            text = pattern.sub(replacement, text)
    lines = [" ".join(line.split()) if "  " in line else line.strip() for line in text.split("\n")]
    if "|" in text:
        lines = _read_tables(lines)
    text = "\n".join(
        _ENUMERATOR.sub("- ", line, count=1) if _ENUMERATOR.match(line) else line for line in lines if line
    )
    return _spell_commas(text) if odd_number and _DIGIT_COMMA.search(text) else text


_DIGIT_COMMA = re.compile(r"[0-9],[0-9]")
_COMMA_NUMBER = re.compile(
    r"(?P<joined>(?:[-~>]|\b(?:to|until|till|through|and|bis|à|hasta|und)) ?)?(?<![0-9a-z_.:])"
    r"(?P<number>[0-9]{1,4}(?:,[0-9]{1,3}){1,4}+(?:\.[0-9]++)?)(?![0-9])"
    r"(?P<unit> ?-?(?:seconds?|secs?|s)(?![a-z0-9])|(?= ?(?:-|~|(?:to|until|and|bis|à|hasta|und)\b|到|至)))?"
)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")


def _spell_commas(text: str) -> str:
    """A number with commas in it, three ways: ``[3,5]`` is a pair, ``1,234.5`` has thousands, ``3,5 - 4,5`` decimals.

    After a dash (``0-5,10-15``) the comma separates two spans, unless the first number had a decimal comma too. Alone,
    ``3,5`` is one number, and stays as it is.
    """
    written: list[str] = []
    position = 0
    decimal = False
    while found := _COMMA_NUMBER.search(text, position):
        number, unit, joined = found["number"], found["unit"], bool(found["joined"])
        start, end = found.span("number")
        first, _, rest = number.partition(",")
        opened = text[max(0, start - 2) : start].strip(" ")[-1:] in ("(", "[", "{", "<")
        closed = text[found.end() : found.end() + 2].strip(" ")[:1] in (")", "]", "")
        written.append(text[position:start])
        position = end
        if opened and (closed or text[end : end + 1] == ","):
            pass
        elif _THOUSANDS.fullmatch(number) and not (joined and unit == ""):
            plain = number.replace(",", "")
            written.append(plain if "." in plain else plain + ".0")
            continue
        elif rest.isdigit() and len(rest) <= 3 and (decimal if joined else unit is not None):
            decimal = True
            written.append(f"{first}.{rest}")
            continue
        elif rest.isdigit() and not joined:
            written.append(number)
            continue
        written.append(first + ", ")
        position = start + len(first) + 1
    return "".join(written) + text[position:]


_PERCENT = r" ?(?:%|percent\b|per cent\b)"
_OF_VIDEO = (
    r"(?:(?: marks?\b| points?\b)? ?(?:of|into|through|in) (?:the way (?:through|into) )?(?:the |this |its )?"
    r"(?:total |whole |entire |full )?(?:video|clip|footage|recording|film|duration|length|runtime)\b)"
)
_SHARE = re.compile(
    rf"(?<![0-9.])(?P<share>[0-9]{{1,3}}(?:\.[0-9]{{1,6}})?)"
    rf"(?:{_PERCENT}(?={_OF_VIDEO}| (?:mark|point|portion|part|range)s?\b"
    r"| ?(?:[\])}>\"',.;:\n~到]|-(?![a-z])|(?:to|and|until|till)\b|$))"
    rf"|(?= ?(?:-|~|to|and) ?[0-9]{{1,3}}(?:\.[0-9]{{1,6}})?{_PERCENT}))"
)
_ANY_OF_VIDEO = re.compile(rf"{_PERCENT}{_OF_VIDEO}|(?:视频|動画)的?の?(?=[0-9])")


def spell_shares(text: str, duration: float) -> str:
    """Cleaned ``text`` with shares of the clip in seconds: ``20% to 40%`` of 30 s is ``6s to 12s``.

    They are shares of the clip where that is said, and where the text has two of them and no other number. ``95 %
    sure`` is none.
    """
    if "%" not in text and "cent" not in text:
        return text
    shares = _SHARE.findall(text)
    if not _ANY_OF_VIDEO.search(text) and (len(shares) < 2 or any(c.isdecimal() for c in _SHARE.sub("", text))):
        return text
    return _SHARE.sub(lambda found: f"{min(float(found['share']), 100.0) / 100 * duration:.6f}s", text)


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
    if query not in text:
        return text
    letters, digits = any(map(str.isalpha, query)), any(map(str.isdigit, query))
    if not letters or not (" " in query or digits or not query.isascii()):
        return text
    pieces: list[str] = []
    position = 0
    while (found := text.find(query, position)) >= 0:
        end = found + len(query)
        if _IN_WORD_BEFORE.match(text[found - 1 : found]) or _IN_WORD_AFTER.match(text, end):
            pieces.append(text[position : found + 1])
            position = found + 1
        else:
            pieces += (text[position:found], " the event ")
            position = end
    return "".join(pieces) + text[position:]


_IN_WORD_BEFORE = re.compile(r"[a-z0-9_.]")
_IN_WORD_AFTER = re.compile(r"[a-z0-9_]|\.[0-9]")
