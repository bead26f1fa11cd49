"""Reading a case that may be torn, damaged, newer or hostile.

A case is streamed: one frame is in memory at a time, and every length is checked before it is
believed. What cannot be read is counted and named in `Reader.problems`; reading goes on at the
next intact frame (`leakcase_bundle.scan`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Optional

from . import records as _records
from .encoding import decode_maps
from .errors import Damaged
from .migrate import migrate
from .scan import Frame, FrameScan, Problem, Problems
from .schema import from_map

assert _records  # Importing the records registers their kinds.

#: A month of samples at one a second; a case of more is not ours.
MAX_CONTENT_BYTES = 1 << 29
MAX_RECORDS = 1 << 23


class Reader:
    """Streams the records of a case from a binary file that can seek.

    Made again for each pass, so that an iteration can be repeated. `salvage` reads on where even
    the first bytes are damaged. Raises NotACase (not with `salvage`) and NewerFormat when made and
    CodecMissing while iterated; no input raises anything else, but for an OSError of the file.

    The properties describe the last pass, and are final when it is through.
    """

    def __init__(
        self, file: BinaryIO, max_content_bytes: int = MAX_CONTENT_BYTES, salvage: bool = False
    ) -> None:
        self._file = file
        self._max_content_bytes = max_content_bytes
        self._salvage = salvage
        self._start()

    def _start(self) -> None:
        self._problems = Problems()
        self._scan = FrameScan(self._file, self._problems, self._max_content_bytes, self._salvage)
        #: Records that could be decoded, whatever they held.
        self.records = 0
        #: Records that `decoded` handed out: good ones, and those of unknown kinds.
        self.intact_records = 0
        self.unknown_records = 0
        self.damaged_records = 0

    @property
    def minor(self) -> int:
        """The minor format number of the file."""
        return self._scan.minor

    @property
    def complete(self) -> bool:
        """The last frame was there, its digest matched, and nothing else was wrong."""
        return self._scan.ended and self._scan.digest_holds and self._problems.count == 0

    @property
    def truncated(self) -> bool:
        """The file ends before its last frame: a collector that was killed leaves such a case."""
        return not self._scan.ended

    @property
    def problems(self) -> list[Problem]:
        """What could not be read, the first hundred of `problem_count`."""
        return self._problems.listed

    @property
    def problem_count(self) -> int:
        return self._problems.count

    @property
    def frames(self) -> int:
        """Intact frames of records."""
        return self._scan.frames

    @property
    def missing_frames(self) -> int:
        """Frames that are known to be damaged or lost; those after a torn end are not known."""
        return self._scan.missing_frames

    @property
    def skipped_bytes(self) -> int:
        """Bytes of the file that belong to no intact frame."""
        return self._scan.skipped_bytes

    @property
    def file_bytes(self) -> int:
        return self._scan.file_bytes

    @property
    def content_bytes(self) -> int:
        """Bytes of the frames' contents, unpacked."""
        return self._scan.content_bytes

    @property
    def index_records(self) -> Optional[int]:
        """How many records the case held by its own index; None without a readable one."""
        return self._scan.index_records

    def __iter__(self) -> Iterator[Any]:
        """Every readable record of a known kind, in file order."""
        for _, _, record in self.decoded():
            if record is not None:
                yield record

    def decoded(self) -> Iterator[tuple[Frame, dict[str, Any], Optional[Any]]]:
        """Every readable record with its frame and its plain map; None for an unknown kind."""
        for frame, raw in self.maps():
            try:
                record = from_map(migrate(raw))
            except Damaged as error:
                self.damaged_records += 1
                self._problems.note(frame.offset, f"frame {frame.header.sequence}: {error}")
                continue
            if record is None:
                self.unknown_records += 1
            self.intact_records += 1
            yield frame, raw, record

    def maps(self) -> Iterator[tuple[Frame, dict[str, Any]]]:
        """Every record that can be decoded as its plain map, unchecked, with its frame."""
        self._start()
        for frame in self._scan:
            try:
                yield from self._maps_of(frame)
            except Damaged as error:
                self._problems.note(frame.offset, f"frame {frame.header.sequence}: {error}")
            if self.records >= MAX_RECORDS:
                self._problems.note(frame.offset, "the case holds more records than a reader takes")
                return

    def _maps_of(self, frame: Frame) -> Iterator[tuple[Frame, dict[str, Any]]]:
        declared = frame.header.records
        found = 0
        try:
            for raw in decode_maps(frame.content):
                if found == declared:
                    raise Damaged("it holds more records than it declares")
                found += 1
                self.records += 1
                yield frame, raw
        finally:
            self.damaged_records += declared - found
        if found < declared:
            raise Damaged("it holds fewer records than it declares")
