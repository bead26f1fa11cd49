"""Which memory is searched for references, and what registers are told."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from leakcase_collector.heap.roots import (
    RUNNING,
    ThreadState,
    parse_syscall,
    root_spans,
    thread_states,
)
from leakcase_collector.system.door import System
from leakcase_collector.system.memory import MemoryMapping

PAGE = 4096


def mapping(page: int, pages: int = 1, flags: str = "rw-p", path: bytes = b"", **rest: Any) -> Any:
    return MemoryMapping(
        page * PAGE, (page + pages) * PAGE, flags[0] == "r", flags[1] == "w", flags[2] == "x",
        flags[3] == "p", 0, b"00:00", rest.get("inode", 0), path,
    )  # fmt: skip


def spans(*mappings: MemoryMapping, threads: tuple[int, ...] = (), heap: Any = ()) -> Any:
    states = [ThreadState(at, ()) for at in threads]
    return root_spans(mappings, states, heap)


def test_a_thread_in_a_system_call_tells_its_arguments_and_its_stack_pointer() -> None:
    state = parse_syscall(b"7 0x7ffe1 0x1 0x3e8 0x0 0x0 0x55 0x7ffee00 0x7f0051\n")
    assert state.stack_pointer == 0x7FFEE00
    assert state.words == (0x7FFE1, 1, 0x3E8, 0, 0, 0x55, 0x7FFEE00, 0x7F0051)


def test_a_thread_that_waits_outside_of_a_call_tells_where_its_stack_is() -> None:
    assert parse_syscall(b"-1 0x7ffee00 0x7f0051\n") == ThreadState(
        0x7FFEE00, (0x7FFEE00, 0x7F0051)
    )


def test_a_running_thread_and_one_that_is_gone_tell_nothing() -> None:
    assert parse_syscall(b"running\n") == RUNNING
    assert parse_syscall(b"") == RUNNING


def test_every_thread_is_asked_and_one_that_sleeps_tells_its_stack() -> None:
    wake = threading.Event()
    sleeper = threading.Thread(target=wake.wait)
    sleeper.start()
    try:
        time.sleep(0.1)
        states = thread_states(System(), os.getpid())
        # Libraries have threads that Python does not know of.
        threads = len(os.listdir("/proc/self/task"))
    finally:
        wake.set()
        sleeper.join()
    assert len(states) == threads
    assert any(state.stack_pointer is not None for state in states)


def test_private_memory_that_can_be_written_is_searched_whoever_made_it() -> None:
    data = mapping(10, path=b"/usr/lib/libx.so", inode=7)
    assert spans(data, mapping(20), mapping(30, flags="rwxp")) == [
        (10 * PAGE, 11 * PAGE), (20 * PAGE, 21 * PAGE), (30 * PAGE, 31 * PAGE),
    ]  # fmt: skip


def test_code_files_and_devices_are_not_searched() -> None:
    code = mapping(10, flags="r-xp", path=b"/usr/lib/libx.so", inode=7)
    file = mapping(20, flags="rw-s", path=b"/var/lib/table", inode=8)
    device = mapping(30, flags="rw-p", path=b"/dev/mem")
    gpu = mapping(40, flags="rw-s", path=b"/dev/dri/renderD128")
    assert spans(code, file, device, gpu) == []


def test_memory_shared_between_processes_is_searched() -> None:
    assert len(spans(mapping(10, flags="rw-s", path=b"/dev/zero (deleted)"))) == 1
    assert len(spans(mapping(10, flags="rw-s", path=b"/memfd:pool (deleted)"))) == 1


def test_data_that_the_loader_protected_is_searched_and_constants_are_not() -> None:
    constants = mapping(9, flags="r--p", path=b"/usr/lib/libx.so", inode=7)
    relocated = mapping(11, flags="r--p", path=b"/usr/lib/libx.so", inode=7)
    data = mapping(12, path=b"/usr/lib/libx.so", inode=7)
    assert spans(constants, relocated, data) == [
        (11 * PAGE, 12 * PAGE), (12 * PAGE, 13 * PAGE),
    ]  # fmt: skip


def test_of_a_stack_only_what_is_in_use_is_searched() -> None:
    guard, stack = mapping(9, flags="---p"), mapping(10, pages=8)
    main = mapping(50, pages=8, path=b"[stack]")
    found = spans(guard, stack, main, threads=(12 * PAGE + 256, 52 * PAGE + 256))
    assert found == [(12 * PAGE + 128, 18 * PAGE), (52 * PAGE + 128, 58 * PAGE)]


def test_a_stack_within_memory_of_the_programs_own_hides_nothing_below_it() -> None:
    assert spans(mapping(10, pages=8), threads=(12 * PAGE,)) == [(10 * PAGE, 18 * PAGE)]


def test_the_stack_of_a_running_thread_is_searched_as_a_whole() -> None:
    found = root_spans([mapping(9, flags="---p"), mapping(10, pages=8)], [RUNNING], [])
    assert found == [(10 * PAGE, 18 * PAGE)]


def test_the_heap_is_cut_out_wherever_it_lies() -> None:
    heap = [(9 * PAGE, 11 * PAGE), (12 * PAGE, 13 * PAGE), (17 * PAGE, 99 * PAGE)]
    assert spans(mapping(10, pages=8), heap=heap) == [
        (11 * PAGE, 12 * PAGE), (13 * PAGE, 17 * PAGE),
    ]  # fmt: skip


def test_ten_thousand_threads_and_mappings_are_no_trouble() -> None:
    mappings = [mapping(2 * page) for page in range(1, 10_001)]
    heap = [(m.start, m.end) for m in mappings[::2]]
    threads = [ThreadState(m.start + 8, ()) for m in mappings]
    begun = time.process_time()
    assert len(root_spans(mappings, threads, heap)) == 5_000
    assert time.process_time() - begun < 1


def test_an_address_that_is_in_no_mapping_is_no_stack() -> None:
    assert spans(mapping(10), mapping(20), threads=(5, 15 * PAGE, 99 * PAGE)) == [
        (10 * PAGE, 11 * PAGE), (20 * PAGE, 21 * PAGE),
    ]  # fmt: skip
