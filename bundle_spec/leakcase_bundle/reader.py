"""Reading a case that may be torn, damaged, newer or hostile.

A case is streamed: one frame is in memory at a time, and every length is checked before it is
believed. What cannot be read is counted and named in `Reader.problems`; reading goes on at the
next intact frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Optional

from . import records as _records
from .encoding import decode_maps
from .errors import CodecMissing, Damaged, LimitExceeded
from .framing import (
    HEADER_BYTES,
    HEADER_START,
    LAST,
    PROLOGUE_BYTES,
    FrameHeader,
    read_header,
    read_prologue,
    unpack_body,
)
from .migrate import migrate
from .schema import KIND_KEY, from_map
from .writer import INDEX_KIND

assert _records  # Importing the records registers their kinds.

#: A day at one sample a second is some tens of MB of content; a case of more is not ours.
MAX_CONTENT_BYTES = 1 << 30
MAX_PROBLEMS = 100
_SCAN_BYTES = 1 << 16


@dataclass(frozen=True)
class Problem:
    """Something in the file that could not be read, and where (bytes from its start)."""

    offset: int
    message: str


@dataclass(frozen=True)
class Frame:
    """One intact frame: where it lies, and its content still packed."""

    offset: int
    header: FrameHeader
    content: bytes


@dataclass
class Reader:
    """Streams the records of a case from a binary file that can seek.

    After the iteration is through: `complete` tells whether the last frame was there and its
    digest matched; `truncated` whether the file simply ends early; `problems` what was skipped.
    Raises NotACase, NewerFormat and CodecMissing at once, nothing else for any input.
    """

    file: BinaryIO
    max_content_bytes: int = MAX_CONTENT_BYTES
    minor: int = 0
    complete: bool = False
    frames: int = 0
    records: int = 0
    unknown_records: int = 0
    skipped_bytes: int = 0
    content_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0

    def __post_init__(self) -> None:
        self.file.seek(0)
        self.minor = read_prologue(self.file.read(PROLOGUE_BYTES))

    @property
    def truncated(self) -> bool:
        """No last frame, and nothing worse: a collector that was killed leaves such a case."""
        return not self.complete and self.problem_count == 0

    def __iter__(self) -> Iterator[Any]:
        """Every readable record of a known kind, in file order."""
        for _, raw in self.maps():
            try:
                record = from_map(migrate(raw))
            except Damaged as error:
                self._note(self.file.tell(), str(error))
                continue
            if record is None:
                self.unknown_records += 1
            else:
                yield record

    def maps(self) -> Iterator[tuple[Frame, dict[str, Any]]]:
        """Every readable record as its plain map (unknown kinds too), with its frame."""
        for frame in self.intact_frames():
            try:
                for raw in decode_maps(frame.content):
                    if raw.get(KIND_KEY) != INDEX_KIND:
                        self.records += 1
                        yield frame, raw
            except Damaged as error:
                self._note(frame.offset, str(error))

    def intact_frames(self) -> Iterator[Frame]:
        """Every frame of records whose checksum holds."""
        digest = hashlib.sha256()
        self.file.seek(0)
        digest.update(self.file.read(PROLOGUE_BYTES))
        expected = 0
        while True:
            offset = self.file.tell()
            raw = self.file.read(HEADER_BYTES)
            if not raw:
                return
            header, body, content = self._read_frame(offset, raw)
            if header is None or content is None:
                if not self._seek_next_header(offset + 1):
                    return
                continue
            if header.kind == LAST:
                self._check_last(offset, content, digest)
                if self.file.read(1):
                    self._note(self.file.tell() - 1, "bytes follow the last frame")
                return
            digest.update(raw)
            digest.update(body)
            if header.sequence != expected:
                self._note(offset, f"frames {expected} to {header.sequence - 1} are missing")
            expected = header.sequence + 1
            self.content_bytes += len(content)
            if self.content_bytes > self.max_content_bytes:
                self._note(offset, "the case holds more than a reader takes; the rest was left out")
                return
            self.frames += 1
            yield Frame(offset, header, content)
            self.file.seek(offset + HEADER_BYTES + header.stored_bytes)

    def _read_frame(
        self, offset: int, raw: bytes
    ) -> tuple[Optional[FrameHeader], bytes, Optional[bytes]]:
        try:
            header = read_header(raw)
            if header is None:
                if len(raw) == HEADER_BYTES or not HEADER_START.startswith(raw[:8]):
                    self._note(offset, "no frame where one should begin")
                return None, b"", None
            body = self.file.read(header.stored_bytes)
            if len(body) < header.stored_bytes:
                # The usual end of a collector that was killed: not a problem of its own.
                return header, body, None
            return header, body, unpack_body(header, body)
        except CodecMissing:
            raise
        except Damaged as error:
            self._note(offset, str(error))
            return None, b"", None

    def _check_last(self, offset: int, content: bytes, digest: hashlib._Hash) -> None:
        try:
            index = next(decode_maps(content))
        except (Damaged, StopIteration):
            self._note(offset, "the last frame cannot be read")
            return
        if index.get(KIND_KEY) != INDEX_KIND or index.get("sha256") != digest.digest():
            self._note(offset, "the digest does not match: frames were changed, lost or added")
        elif self.problem_count == 0:
            self.complete = True

    def _seek_next_header(self, start: int) -> bool:
        """Move to the next place after damage that looks like a frame's header."""
        position = start
        overlap = len(HEADER_START) - 1
        while True:
            self.file.seek(position)
            window = self.file.read(_SCAN_BYTES + overlap)
            found = window.find(HEADER_START)
            if found >= 0:
                self.skipped_bytes += position + found - (start - 1)
                self.file.seek(position + found)
                return True
            if len(window) <= overlap or len(window) < _SCAN_BYTES + overlap:
                self.skipped_bytes += position + len(window) - (start - 1)
                return False
            position += _SCAN_BYTES

    def _note(self, offset: int, message: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(offset, message))


__all__ = ["Frame", "LimitExceeded", "Problem", "Reader"]
