"""A walk through one huge JSON document: its lists and objects are entered, only their small parts are parsed."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from instructor_st.data.sources.packed_files import BrokenOffError

__all__ = ["JsonValue", "JsonWalk"]

# Not ijson: it stops at the NaN of published task files and at a byte that is not UTF-8, makes `?` of a lone surrogate,
# and has no limit on the length of a value.

_CHUNK_BYTES = 1 << 18
_BLANK = re.compile(r"[ \t\r\n]*")
_AFTER_VALUE = tuple(" \t\r\n,:]}")
_OUTSIDE_TEXT = re.compile(r'["\[\]{},]')
_INSIDE_TEXT = re.compile(r'["\\]')
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class JsonValue:
    """A value, or why there is none.

    Attributes:
        value: The value.
        fault: `not JSON`, `not UTF-8` or that it is too long; blank if all is well.
        detail: What exactly is wrong.
    """

    value: Any = None
    fault: str = ""
    detail: str = ""


class JsonWalk:
    """Walks through a document, forwards only.

    Every value that `walk_keys` announces must be taken, by `read_value`, `skip_value` or `walk_items`.
    All methods raise `BrokenOffError` where the document ends too early or is no longer JSON.
    """

    def __init__(self, file: BinaryIO, *, max_characters: int) -> None:
        """Begin a walk.

        Args:
            file: The document, UTF-8.
            max_characters: The longest value to parse; a longer one is passed over, and costs no memory.
        """
        self._file = file
        self._limit = max_characters
        # Bytes that are not UTF-8 become surrogates, so that only the value they stand in is bad.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._parser = json.JSONDecoder()
        self._text = ""
        self._place = 0
        self._has_bad_bytes = False

    def peek(self) -> str:
        """Return the next character that is not blank, or nothing at the end."""
        while True:
            self._place = _BLANK.match(self._text, self._place).end()  # type: ignore[union-attr]
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._fill():
                return ""

    def walk_items(self) -> Iterator[JsonValue]:
        """Walk through a list.

        Yields:
            Its items.
        """
        self._take("[")
        if self.peek() == "]":
            return self._take("]")
        while True:
            value = self.read_value()
            yield value
            if self.peek() == "]":
                return self._take("]")
            self._take(",")

    def walk_keys(self) -> Iterator[str]:
        """Walk through an object.

        Yields:
            Its keys; the walk then stands before the key's value.
        """
        self._take("{")
        if self.peek() == "}":
            return self._take("}")
        while True:
            key = self.read_value()
            if not isinstance(key.value, str):
                raise BrokenOffError("a key in quotes is expected")
            self._take(":")
            yield key.value
            if self.peek() == "}":
                return self._take("}")
            self._take(",")

    def read_value(self) -> JsonValue:
        """Parse the value that comes next, or pass over it if that cannot be done."""
        self.peek()
        while True:
            fault = ""
            end = 0
            try:
                value, end = self._parser.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                fault = error.msg
            except (ValueError, RecursionError) as error:
                # Numbers of thousands of digits, and lists in lists in lists.
                fault = str(error)
            # Cut by the end of the chunk? A number ends only where something else begins.
            is_whole = end > 0 and self._text[end : end + 1] in _AFTER_VALUE
            if is_whole or len(self._text) - self._place > self._limit or not self._fill():
                break
        if not fault:
            has_bad_bytes = self._has_bad_bytes and _NOT_UTF8.search(self._text, self._place, end)
            length = end - self._place
            self._place = end
            if self.peek() in (",", ":", "]", "}", ""):
                if length > self._limit:
                    return self._find_too_long()
                return JsonValue(fault="not UTF-8") if has_bad_bytes else JsonValue(value)
            fault = "',' expected after it"
        return self._find_too_long() if self.skip_value() > self._limit else JsonValue(fault="not JSON", detail=fault)

    def skip_value(self) -> int:
        """Pass over the value that comes next, whatever its length.

        Returns:
            The number of its characters.
        """
        length = depth = 0
        is_in_text = False
        while True:
            found = (_INSIDE_TEXT if is_in_text else _OUTSIDE_TEXT).search(self._text, self._place)
            stop = len(self._text) if found is None else found.start()
            mark = "" if found is None else found.group()
            length += stop - self._place
            self._place = stop
            if not mark or (mark == "\\" and stop + 1 == len(self._text)):
                if not self._fill():
                    raise BrokenOffError("the JSON ends in the middle, or a quote or bracket in it is not closed")
                continue
            if depth == 0 and not is_in_text and mark in ",]}":
                return length
            width = 2 if mark == "\\" else 1
            self._place += width
            length += width
            if mark == '"':
                is_in_text = not is_in_text
            else:
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark, 0)

    def finish(self) -> None:
        """Make sure that nothing follows."""
        if found := self.peek():
            raise BrokenOffError(f"the JSON ends, and yet {found!r} follows")

    def _take(self, wanted: str) -> None:
        found = self.peek()
        if not found:
            raise BrokenOffError("the JSON ends in the middle")
        if found != wanted:
            raise BrokenOffError(f"the JSON has {found!r} where {wanted!r} is expected")
        self._place += 1

    def _fill(self) -> bool:
        """Drop what has been walked through and read on."""
        chunk = self._file.read(_CHUNK_BYTES)
        text = self._decoder.decode(chunk, final=not chunk)
        self._has_bad_bytes = self._has_bad_bytes or (not text.isascii() and _NOT_UTF8.search(text) is not None)
        self._text = self._text[self._place :] + text
        self._place = 0
        return bool(chunk or text)

    def _find_too_long(self) -> JsonValue:
        return JsonValue(fault=f"longer than {self._limit:,} characters")
