"""Texts for parsers that must not raise: recordings cut, mended with foreign pieces, or noise."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

_PIECES = [
    b"\n", b"\0", b" ", b":", b"-", b"/", b"[", b"]", b"-1", b"9" * 30, b"0x", b"_", b"\xff",
    b" (deleted)", b"VmFlags:", b"\nVmFlags: rd\n", b"kB", b"drm-", b",",
]  # fmt: skip


def changed(recording: bytes) -> st.SearchStrategy[bytes]:
    """The recording with a piece replaced, cut short, or something that is nothing like it."""
    position = st.integers(0, len(recording))
    piece = st.one_of(st.binary(max_size=12), st.sampled_from(_PIECES))
    mended = st.builds(
        lambda start, end, between: recording[:start] + between + recording[end:],
        position,
        position,
        piece,
    )
    return st.one_of(mended, position.map(lambda end: recording[:end]), st.binary(max_size=300))


def pieces(text: bytes, size: int) -> Iterator[bytes]:
    """The text in chunks of `size`, as read(2) would hand it out."""
    for start in range(0, len(text), size):
        yield text[start : start + size]
