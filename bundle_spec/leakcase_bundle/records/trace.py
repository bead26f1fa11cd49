"""Who allocates: traced windows, the stacks that were seen, and what of their blocks stayed."""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word
from leakcase_bundle.strings import BuildId, PathToken, SymbolToken


@record("code.frame")
class CodeFrame:
    """One place in the code, told once; stacks refer to it by its number."""

    frame: int
    code: str = word("code", "What kind of code it is, and so who could name it.")
    module: Optional[PathToken] = None
    build_id: Optional[BuildId] = None
    address: Optional[int] = says(
        "Of the instruction that returns to, or is at, this place: as the file's symbol table "
        "counts (the sum of a segment's p_vaddr and the offset in it), so that it means the same "
        "wherever the file is mapped.",
        default=None,
    )
    function: Optional[SymbolToken] = says(
        "From the symbols on the host; absent where it has none for this place.", default=None
    )
    function_offset: Optional[int] = says("Bytes from the function's start.", default=None)
    file: Optional[PathToken] = says(
        "The source file, where it is known; `frozen:NAME` is a module within the interpreter.",
        default=None,
    )
    line: Optional[int] = None


@record("code.stack")
class CodeStack:
    """Frames from the innermost, which called the allocator, outwards."""

    stack: int
    frames: list[int]
    end: str = word("stack_end", "Why there is no further frame.")


@record("trace.rates")
class TraceRates:
    """How often the target called its allocator in a short window, and what watching cost.

    Entry i of the lists named after calls goes together, and so do those named after sizes.
    """

    taken_ns: int
    window_ns: int
    attach: str = word("attach_method", "How the kernel was made to call us.")
    calls_of: list[str] = word("allocator_call", "Which function.")
    calls: list[int]
    net_blocks: int = says("Allocated less freed.")
    size_from_bytes: list[int] = says("The smallest size asked for in each class, rising.")
    size_calls: list[int] = says("Allocations of each class of size.")
    net_bytes: Optional[int] = says(
        "The same in bytes; blocks that were allocated before are not in it.", default=None
    )
    call_cost_ns: Optional[int] = says(
        "What one watched call cost the target, measured here.", default=None
    )
    predicted_slowdown_ppm: Optional[int] = says(
        "What watching every call all the time would cost, of the target's CPU, in millionths.",
        default=None,
    )
    target_cpu_ns: Optional[int] = says("CPU that the target used meanwhile.", default=None)


@record("trace.window")
class TraceWindow:
    """One window in which each allocation and each free was seen."""

    window: int
    started_ns: int
    duration_ns: int = says("From the first call that was seen to the last allocation.")
    linger_ns: int = says("For how much longer frees were still watched.")
    mode: str = word("trace_mode")
    attach: str = word("attach_method")
    allocations: int
    allocated_bytes: int
    frees: int
    capped: bool = says("Ended by the limit on the number of calls, before its time.")
    kept_blocks: int = says("Allocated in the window and not freed in it.")
    kept_bytes: int
    smallest_bytes: Optional[int] = says(
        "Only sizes from here on were watched, as asked for: those by which the heap grew so far. "
        "Frees are of all sizes. Absent: all sizes were.",
        default=None,
    )
    largest_bytes: Optional[int] = says("Only sizes up to here were watched.", default=None)
    attach_ns: Optional[int] = says("How long it took to arm.", default=None)
    detach_ns: Optional[int] = says("How long it took until all was undone.", default=None)
    target_cpu_ns: Optional[int] = says(
        "CPU that the target used in the window; against other times it tells active from idle.",
        default=None,
    )
    lost_blocks: Optional[int] = says("Allocations that found the table full.", default=None)
    lost_stacks: Optional[int] = says("Allocations of which no stack was kept.", default=None)
    short_stacks: Optional[int] = says("Stacks whose outer end was not reached.", default=None)
    missed_calls: Optional[int] = says(
        "Calls that the kernel could not hand over (as when too many were under way).", default=None
    )
    watched: Optional[str] = word(
        "trace_watched",
        "Whose blocks: the allocator's, or objects that Python's garbage collector tracks, which "
        "mostly are too small for it; windows of the two take turns, each with a rate of its own. "
        "Or memory that is mapped, be it by the allocator: watched throughout, in mode `full`.",
        default=None,
    )


@record("trace.sites")
class TraceSites:
    """What each stack did in one window. Entry i of each list goes together."""

    window: int
    stacks: list[int]
    allocations: list[int]
    allocated_bytes: list[int]
    freed: list[int] = says("Of these allocations, freed before the window's end.")
    kept: list[int]
    kept_bytes: list[int]
    kept_smallest_bytes: Optional[list[int]] = says(
        "The size of the smallest of the kept blocks; 0 where none was kept. Where some windows "
        "watch a part of the sizes only, it tells which of them watched a stack's blocks.",
        default=None,
    )
    kept_largest_bytes: Optional[list[int]] = says("Of the largest of them.", default=None)


@record("trace.survival")
class TraceSurvival:
    """What one later look found of the blocks that a window left. Entry i goes together.

    A block counts as alive where it still holds the words that told it from its like when the
    window ended; as dead where it was freed, handed out again, or holds others. That a block is
    alive does not show that it is never freed.
    """

    window: int
    taken_ns: int
    age_ns: int = says("From the window's end to this look.")
    stacks: list[int]
    alive: list[int]
    alive_bytes: list[int]
    dead: list[int]
    unknown: list[int] = says("Could not be read, or changed too much to tell.")
    weak: list[int] = says(
        "Of the alive, those with nothing in them that tells one block from another; another "
        "block in the same place would look the same."
    )


@record("trace.contents")
class TraceContents:
    """What the surviving blocks of a stack are, by labels made on the host.

    Shares in thousandths of the blocks looked at.
    """

    stack: int
    taken_ns: int
    blocks: int = says("Looked at.")
    text_permille: int
    zeros_permille: int
    pointers_permille: int
    random_permille: int = says("High entropy: compressed or encrypted.")
    class_name: Optional[SymbolToken] = says(
        "The commonest C++ class or Python type among them.", default=None
    )
    class_permille: Optional[int] = None


@record("trace.outstanding")
class TraceOutstanding:
    """What was allocated while everything was traced and is not freed. Entry i goes together.

    Sums over one time of tracing: the number of blocks by stack is exact where its window lost
    nothing.
    """

    window: int
    taken_ns: int
    stacks: list[int]
    blocks: list[int]
    bytes_held: list[int]
    allocations: list[int] = says(
        "All of this stack's, freed ones too; as many as `blocks` where that is not told."
    )
    older_blocks: Optional[list[int]] = says(
        "Of `blocks`, allocated in the first half of the time traced; absent where ages are not "
        "told.",
        default=None,
    )
    older_bytes: Optional[list[int]] = None


@record("trace.tool")
class TraceTool:
    """A fallback tool that was run, bounded, in place of our own loader; its output is typed."""

    window: int
    tool: str = word("trace_tool")
    started_ns: int
    duration_ns: int
    lost_events: Optional[int] = None
    truncated_stacks: Optional[int] = says("At the tool's own limit of depth.", default=None)
