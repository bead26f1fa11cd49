"""Whether memory is in use, or was freed and is kept by the allocator."""

from __future__ import annotations

import math
from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, HeapChange, HeapState, NotSeen, RuledOut, Track
from leakcase_analyzer.findings.books import Books, Entry, at
from leakcase_analyzer.findings.managed_heap import lies_in_collected_heap
from leakcase_analyzer.findings.tracks import anonymous_and_swap, books_of
from leakcase_analyzer.heap_looks import HeapLook, kept_bytes
from leakcase_analyzer.sentences import Count, Sentence, Share, Size, Span, say

#: Less than this is nobody's trouble, and not worth a word.
WORTH_A_WORD_BYTES = 1 << 20
WORTH_A_WORD_SHARE = 0.1
#: Growth below this says nothing about its parts.
LEAST_GROWTH_BYTES = 256 << 10
#: Growth that is freed memory by less than this is none of the allocator's.
HARDLY_KEPT = 0.2


def retention(evidence: Evidence) -> Iterator[Finding]:
    """The last look into the heap, and what changed since the first."""
    books = books_of(evidence)
    for doubt in books.doubts:
        yield NotSeen(
            claim=say("the allocator's books of one look"),
            because=doubt,
            effect=say("that look is left out: memory in use is told from freed memory without it"),
            weight=0.95,
        )
    if books.last is None:
        return
    state = _state(books, books.last, anonymous_and_swap(evidence))
    yield state
    if state.kept_bytes is None:
        yield NotSeen(
            claim=say("how much of the freed memory is resident"),
            because=say("the kernel did not tell which pages of the heap are in RAM"),
            effect=say("what the allocator keeps may be address space only"),
            weight=0.97,
        )
    if state.change is not None and state.change.held_bytes >= LEAST_GROWTH_BYTES:
        is_collected = lies_in_collected_heap(evidence, state.change.in_use_bytes)
        yield from _growth(state.change, is_collected)


def _state(books: Books, last: Entry, held: Track | None) -> HeapState:
    look = last.heap
    held_bytes = None if held is None else at(held, last.seconds)
    change = _change(books, held)
    beyond_main = None if look is None else _beyond_main(look)
    returnable = None if look is None else look.returnable_bytes
    python_kept = 0 if last.python is None else last.python.kept_bytes
    return HeapState(
        claim=_claim(last, held_bytes),
        evidence_for=(
            *_parts(last, returnable, python_kept),
            *(() if look is None else _arenas(look, beyond_main)),
        ),
        in_use_bytes=last.in_use_bytes,
        kept_bytes=last.kept_bytes,
        held_bytes=held_bytes,
        returnable_bytes=returnable,
        top_bytes=None if look is None else look.main_top_bytes,
        beyond_main_bytes=beyond_main,
        python_kept_bytes=python_kept,
        python_in_use_bytes=0 if last.python is None else last.python.block_bytes,
        arenas=0 if look is None else look.total.arenas,
        change=change,
        error_bytes=last.error_bytes,
    )


def heap_change(evidence: Evidence) -> HeapChange | None:
    """What became of the heap between the first look and the last; None: not known."""
    return _change(books_of(evidence), anonymous_and_swap(evidence))


def _change(books: Books, held: Track | None) -> HeapChange | None:
    if books.ends is None or held is None:
        return None
    first, last = books.ends
    before, after = at(held, first.seconds), at(held, last.seconds)
    if before is None or after is None:
        return None
    kept = None
    if first.kept_bytes is not None and last.kept_bytes is not None:
        kept = last.kept_bytes - first.kept_bytes
    return HeapChange(
        seconds=last.seconds - first.seconds,
        in_use_bytes=last.in_use_bytes - first.in_use_bytes,
        kept_bytes=kept,
        held_bytes=after - before,
        error_bytes=math.hypot(first.error_bytes, last.error_bytes),
    )


def _beyond_main(look: HeapLook) -> int | None:
    kept = [kept_bytes(arena) for arena in look.arenas if arena.arena != 0]
    known = [size for size in kept if size is not None]
    return sum(known) if len(known) == len(kept) else None


# --- in words -------------------------------------------------------------------------------------


def _claim(last: Entry, held_bytes: float | None) -> Sentence:
    used, kept = Size(last.in_use_bytes), last.kept_bytes
    error = {"error": Size(last.error_bytes)} if last.error_bytes else {}
    text = "in the heap {used} are in use"
    if last.told is not None:
        text = "by the allocator's own words {used} are in use"
    if error:
        text = "in the heap about {used} (\u00b1 {error}) are in use"
    if kept is None:
        return say(text, used=used, **error)
    text += ", and {kept} were freed but are kept"
    if not held_bytes:
        return say(text, used=used, kept=Size(kept), **error)
    share = Share(min(1.0, kept / held_bytes))
    text += ": {share} of what it holds"
    return say(text, used=used, kept=Size(kept), share=share, **error)


def _parts(last: Entry, returnable: int | None, python_kept: int) -> Iterator[Sentence]:
    """What malloc could give back, what lies beside blocks in use, and what is pymalloc's."""
    kept = None if last.heap is None else last.heap.kept_bytes
    if _matters(python_kept, last):
        yield say(
            "pymalloc keeps {size} of that, in pools that are partly used or empty",
            size=Size(python_kept),
        )
    if kept is None or returnable is None:
        return
    if _matters(returnable, last):
        yield say(
            "{size} of that are whole pages that malloc could give back", size=Size(returnable)
        )
    if _matters(kept - returnable, last):
        yield say(
            "{size} of that lie between blocks in use, where no page is wholly free",
            size=Size(kept - returnable),
        )


def _arenas(look: HeapLook, beyond_main: int | None) -> Iterator[Sentence]:
    threads = sum(1 for arena in look.arenas if arena.arena != 0)
    kept = look.kept_bytes
    if threads and beyond_main and kept and beyond_main >= 0.5 * kept:
        yield say(
            "{share} of what malloc keeps lies in {arenas} of threads",
            share=Share(beyond_main / kept),
            arenas=Count(threads, "arena"),
        )
    mapped = look.total.mapped_resident_bytes
    if mapped and mapped >= WORTH_A_WORD_BYTES:
        yield say(
            "{blocks} with mappings of their own hold {size}",
            blocks=Count(look.total.mapped_chunks, "large block"),
            size=Size(mapped),
        )


def _matters(size_bytes: int, last: Entry) -> bool:
    return size_bytes >= max(WORTH_A_WORD_BYTES, WORTH_A_WORD_SHARE * (last.kept_bytes or 0))


def growth_in_words(change: HeapChange) -> Sentence:
    """What grew between two looks: what is in use, what is kept, and all of it."""
    kept = change.kept_bytes
    parts = "blocks in use by {used}"
    if kept is not None:
        parts += ", freed memory by {kept}" if kept >= 0 else "; freed memory fell by {kept}"
    return say(
        "between two looks {span} apart it grew by {held}: " + parts,
        span=Span(change.seconds),
        held=Size(change.held_bytes),
        used=Size(change.in_use_bytes),
        **({} if kept is None else {"kept": Size(abs(kept))}),
    )


def _growth(change: HeapChange, is_collected: bool) -> Iterator[Finding]:
    """`is_collected`: what grew is known to be a runtime's, and in no book of malloc's."""
    kept = change.kept_bytes
    if not change.covers:
        if is_collected:
            return
        yield NotSeen(
            claim=say("what most of the growth consists of"),
            because=say(
                "of {held} that were added, only {seen} are in the books of the allocator that "
                "could be read",
                held=Size(change.held_bytes),
                seen=Size(max(0.0, change.in_use_bytes + (kept or 0.0))),
            ),
            effect=say("the rest is mapped directly, or belongs to an allocator of another kind"),
        )
    elif kept is not None and kept < HARDLY_KEPT * change.held_bytes:
        yield RuledOut(
            claim=say("freed memory that the allocator keeps"),
            because=say(
                "of {held} that were added {used} are blocks in use",
                held=Size(change.held_bytes),
                used=Size(change.in_use_bytes),
            ),
        )
