"""JSON that is read an entry at a time, so that a file takes no more memory than its largest entry and what is kept.

:class:`JsonStream` walks through one document (an outer list or object); :func:`lines_of` through the lines of a file.
Both bound what one entry may hold: a small text can stand for a large tree of objects (``{"":0},`` takes 8 bytes in a
file and 300 in memory).
"""

from __future__ import annotations

import codecs
import gc
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from timelens_plugins.moments.rows import RepeatedKeys

__all__ = ["MAX_ENTRY", "BrokenJson", "JsonStream", "Line", "chunks_of", "collection_paused", "lines_of", "parse_json"]

MAX_ENTRY = 4 << 20
"""Bytes of a line, or characters of an entry, that are read; the annotations of an hour of video take a tenth."""

CHUNK = 1 << 20
MARGIN = 16  # characters: more than the longest token of JSON that is no string, so an error before it is a real one

_SPACE = re.compile(r"[ \t\n\r]*")


class BrokenJson(ValueError):
    """A document that cannot be read from here on. ``at_end``: because its text ends."""

    def __init__(self, reason: str, at_end: bool = False) -> None:
        super().__init__(reason)
        self.at_end = at_end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    return content if len(content) == len(pairs) else RepeatedKeys(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def parse_json(text: str) -> Any:
    """One JSON value with repeated keys kept in sight. NaN and infinity pass: who reads the field refuses them.

    Raises:
        ValueError: it is none, or is nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@contextmanager
def collection_paused() -> Iterator[None]:
    """Rows hold no reference cycles; Python's search for them would look at all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Line(NamedTuple):
    """A line with something in it: its number from 1, its bytes without the line end, and whether that is all."""

    number: int
    content: bytes
    whole: bool


def lines_of(path: str | Path) -> Iterator[Line]:
    """The lines of a file that are not blank. Of one longer than :data:`MAX_ENTRY` only the beginning is kept.

    Lines end in ``\\n`` or ``\\r\\n``, or all of them in ``\\r``, as some spreadsheets write a table.
    """
    with Path(path).open("rb") as file:
        end, read = _line_end(file)
        number = 0
        while raw := read(MAX_ENTRY):
            number += 1
            whole = raw.endswith(end) or len(raw) < MAX_ENTRY
            rest = b"" if whole else raw
            while rest and not rest.endswith(end):
                rest = read(CHUNK)
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw.strip():
                yield Line(number, raw.rstrip(b"\r\n"), whole)


def _line_end(file: io.BufferedReader) -> tuple[bytes, Callable[[int], bytes]]:
    """What ends the lines of a file, by its beginning, and what reads the next one, up to a number of bytes."""
    start = file.peek()
    if b"\n" in start or b"\r" not in start[:-1]:
        return b"\n", file.readline
    text = io.TextIOWrapper(file, "latin-1", newline="\r")  # a character a byte
    return b"\r", lambda size: text.readline(size).encode("latin-1")


def chunks_of(path: str | Path) -> Iterator[str]:
    """The text of a UTF-8 file, a piece at a time; ``UnicodeDecodeError`` counts from the start of the file."""
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    passed = 0
    with Path(path).open("rb") as file:
        while True:
            raw = file.read(CHUNK)
            try:
                text = decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                start = max(0, passed - (len(error.object) - len(raw))) + error.start
                raise UnicodeDecodeError("utf-8", b"", start, start + 1, error.reason) from None
            passed += len(raw)
            if text:
                yield text
            if not raw:
                return


class JsonStream:
    """A JSON document, read from pieces of its text. Only what is being read is held.

    Raises:
        BrokenJson: from every method, where the document breaks off or is none.
    """

    def __init__(self, chunks: Iterable[str]) -> None:
        self._chunks = iter(chunks)
        self._buffer, self._position, self._passed = "", 0, 0
        self._ended = False

    def members(self) -> Iterator[tuple[str, Any]]:
        """Keys and values of the outer object, with every repetition of a key."""
        yield from self._items("{", "}", self._member)
        self._end()

    def elements(self) -> Iterator[Any]:
        """The elements of the outer list."""
        yield from self._items("[", "]", self._value)
        self._end()

    def _member(self) -> tuple[str, Any]:
        if (found := self._peek()) != '"':
            raise self._broken("expecting a name in double quotes", at_end=not found)
        name = self._value()
        self._take(":")
        return name, self._value()

    def _items(self, opening: str, closing: str, read: Callable[[], Any]) -> Iterator[Any]:
        self._take(opening)
        if self._peek() != closing:
            yield read()
            while self._peek() == ",":
                self._take(",")
                yield read()
        self._take(closing)

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._position)
            except RecursionError:
                raise self._broken("nested too deeply") from None
            except json.JSONDecodeError as error:
                at = self._passed + error.pos
                cut_off = error.msg.startswith("Unterminated string") or error.pos >= len(self._buffer) - MARGIN
                if not cut_off or not self._more():
                    raise self._broken(error.msg, at, cut_off) from None
            except ValueError as error:  # a number of thousands of digits
                raise self._broken(str(error)) from None
            else:
                # A number at the end of the piece may go on in the next one: 1.5e- is read as 1.5.
                if end < len(self._buffer) - MARGIN or not self._more():
                    self._position = end
                    return value
            if len(self._buffer) - self._position > MAX_ENTRY + CHUNK:
                raise self._broken(f"an entry of more than {MAX_ENTRY:,} characters")

    def _peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._position)
            assert match is not None  # it matches nothing, too
            self._position = match.end()
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if (found := self._peek()) != character:
            raise self._broken(f"expecting {character!r}", at_end=not found)
        self._position += 1

    def _end(self) -> None:
        if self._peek():
            raise self._broken("something stands after the end of the document")

    def _more(self) -> bool:
        """Read at least as much again as is held, so that a value is tried a few times only."""
        held = len(self._buffer) - self._position
        pieces, size = list[str](), 0
        while not self._ended and size <= held:
            piece = next(self._chunks, None)
            if piece is None:
                self._ended = True
            else:
                pieces.append(piece)
                size += len(piece)
        if size:
            self._buffer = "".join([self._buffer[self._position :], *pieces])
            self._passed += self._position
            self._position = 0
        return size > 0

    def _broken(self, reason: str, at: int | None = None, at_end: bool = False) -> BrokenJson:
        at = self._passed + self._position if at is None else at
        return BrokenJson(f"{reason} (character {at + 1:,} of the file)", at_end)
