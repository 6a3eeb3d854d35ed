"""The items of a JSON list or of JSON lines, or an object's members, one at a time, from a file of
any size.

An item that is no JSON is reported with its place, and reading goes on after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from joyvl_train.config import UserError
from joyvl_train.records import RecordError

MAX_ITEM_BYTES = 1 << 26

_CHUNK = 1 << 18
# A whole string, or one mark; a bare quote is a string whose end hasn't been read yet. Possessive,
# so that an unfinished string costs one pass.
_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
_SCALAR = re.compile(rb"[,\]}\s]")
_BETWEEN = b", \t\r\n"


@dataclass(frozen=True)
class Item:
    """Item `number` of a file: its bytes are [offset, offset + length). Either data or error."""

    number: int
    offset: int
    length: int
    data: Any = None
    error: RecordError | None = None


def json_items(path: str | os.PathLike[str]) -> Iterator[Item]:
    """The items of a JSON list, of JSON lines, or a single object. Memory is bounded by an item.

    Raises `UserError` where the file can't be opened or begins like neither form.
    """
    try:
        with Path(path).open("rb") as file:
            yield from _items(file, os.fspath(path))
    except OSError as error:
        raise UserError(f"{os.fspath(path)!r} can't be read: {error.strerror}") from None


def json_members(path: str | os.PathLike[str]) -> Iterator[tuple[str, Item]]:
    """The members of a JSON object, by name, also of several objects one after the other.

    A member that is broken ends the reading, since nobody knows where the next one begins; it is
    reported under the name that it has, if any. Raises `UserError` as `json_items` does.
    """
    try:
        with Path(path).open("rb") as file:
            start, head = _start(file)
            if head != b"{":
                raise UserError(f"{os.fspath(path)!r} is no JSON object; write it as one")
            file.seek(start)
            for number, (name, offset, text, reason) in enumerate(_Scanner(file).members()):
                where = f"member {number} {name[:80]!r}, at byte {offset}"
                try:
                    if reason is not None:
                        raise RecordError(reason, where)
                    yield name, Item(number, offset, len(text), parse(text, where))
                except RecordError as error:
                    yield name, Item(number, offset, len(text), error=error)
    except OSError as error:
        raise UserError(f"{os.fspath(path)!r} can't be read: {error.strerror}") from None


def _start(file: BinaryIO) -> tuple[int, bytes]:
    """Where the text starts, and its first mark."""
    start = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
    file.seek(start)
    return start, file.read(_CHUNK).lstrip()[:1]


def _items(file: BinaryIO, name: str) -> Iterator[Item]:
    start, head = _start(file)
    file.seek(start)
    if head == b"[":
        spans = _list_spans(file)
    elif head == b"{" and _is_lines(file, start):
        spans = _line_spans(file)
    elif head == b"{":
        spans = _Scanner(file).spans()
    else:
        raise UserError(f"{name!r} is neither a JSON list nor JSON lines; write it as one of them")
    for number, (offset, text, reason) in enumerate(spans):
        where = f"item {number}, at byte {offset}"
        try:
            if reason is not None:
                raise RecordError(reason, where)
            yield Item(number, offset, len(text), parse(text, where))
        except RecordError as error:
            yield Item(number, offset, len(text), error=error)


def parse(text: bytes, where: str) -> Any:
    """The value of one item; `RecordError` where it isn't one."""
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise RecordError("not UTF-8", where) from None
    except RecursionError:
        raise RecordError("nested too deeply", where) from None
    except ValueError as error:
        raise RecordError("not JSON", f"{where}: {error}") from None


Span = tuple[int, bytes, str | None]
"""Offset, bytes, and a reason where it can't be an item."""


def _is_lines(file: BinaryIO, start: int) -> bool:
    """Whether the first line is a value by itself; else one value may spread over many lines."""
    while (line := file.readline(MAX_ITEM_BYTES)) and not line.strip():
        pass
    rest = file.read(1)
    file.seek(start)
    try:
        parse(line, "")
    except RecordError:
        return bool(rest) and line.rstrip().endswith(b"}")
    return True


def _line_spans(file: BinaryIO) -> Iterator[Span]:
    while True:
        offset = file.tell()
        line = file.readline(MAX_ITEM_BYTES)
        if not line:
            return
        if len(line) == MAX_ITEM_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_ITEM_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield offset, b"", "too large"
        elif line.strip():
            yield offset, line, None


def _list_spans(file: BinaryIO) -> Iterator[Span]:
    scanner = _Scanner(file)
    scanner.skip(b" \t\r\n")
    scanner.at += 1
    yield from scanner.spans(in_list=True)


class _Scanner:
    """Finds where values end by their brackets and strings alone."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.buffer = bytearray()
        self.base = file.tell()
        self.at = 0

    def _more(self) -> bool:
        data = self.file.read(max(_CHUNK, len(self.buffer)))
        self.buffer += data
        return bool(data)

    def skip(self, what: bytes) -> bool:
        """Go to the first byte that is none of `what`; False at the end of the file."""
        while True:
            while self.at < len(self.buffer):
                if self.buffer[self.at] not in what:
                    return True
                self.at += 1
            if not self._more():
                return False

    def spans(self, in_list: bool = False) -> Iterator[Span]:
        while self.skip(_BETWEEN):
            if in_list and self.buffer[self.at] == ord("]"):
                self.at += 1
                if self.skip(b" \t\r\n"):
                    yield self.base + self.at, b"", "not JSON"
                return
            offset, found, error = self._value()
            yield offset, found, error
            if error is not None:
                return
        if in_list:
            yield self.base + self.at, b"", "cut off"

    def members(self) -> Iterator[tuple[str, int, bytes, str | None]]:
        """Name, offset, bytes, and a reason where it can't be one, of each member of an object."""
        while self.skip(b" \t\r\n"):
            if self.buffer[self.at] != ord("{"):
                yield "", self.base + self.at, b"", "not JSON"
                return
            self.at += 1
            while self.skip(_BETWEEN):
                if self.buffer[self.at] == ord("}"):
                    self.at += 1
                    break
                name = ""
                start, found, error = self._value()
                if error is None:
                    error = "not JSON"
                    with contextlib.suppress(RecordError):
                        key = parse(found, "")
                        if isinstance(key, str) and self.skip(b" \t\r\n"):
                            name = key
                            if self.buffer[self.at] == ord(":"):
                                self.at += 1
                                error = None if self.skip(b" \t\r\n") else "cut off"
                if error is None:
                    start, found, error = self._value()
                yield name, start, found, error
                if error is not None:
                    return
            else:
                yield "", self.base + self.at, b"", "cut off"
                return

    def _value(self) -> tuple[int, bytes, str | None]:
        """Offset, bytes and reason of the value that starts here; goes to its end."""
        del self.buffer[: self.at]
        self.base += self.at
        self.at = 0
        end, error = self._end()
        self.at = end
        return self.base, bytes(self.buffer[:end]), error

    def _end(self) -> tuple[int, str | None]:
        """Where the value at the buffer's start ends, or why it doesn't."""
        nested = self.buffer[0] in b'{["'
        depth = 0
        position = 0 if nested else 1
        while True:
            if nested:
                for mark in _MARK.finditer(self.buffer, position):
                    found = mark.group()
                    if found == b'"':
                        position = mark.start()
                        break
                    position = mark.end()
                    depth += (found in (b"{", b"[")) - (found in (b"}", b"]"))
                    if depth <= 0:
                        return position, None
            elif scalar := _SCALAR.search(self.buffer, position):
                return scalar.start(), None
            if len(self.buffer) > MAX_ITEM_BYTES:
                return 0, "too large"
            if not self._more():
                return len(self.buffer), "cut off" if nested else None
