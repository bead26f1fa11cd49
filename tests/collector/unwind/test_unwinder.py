"""Where tables say nothing, and where a stack ends."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from leakcase_collector.system.elf import ElfFile
from leakcase_collector.unwind.machines import AARCH64, X86_64, Machine
from leakcase_collector.unwind.modules import CodeModules
from leakcase_collector.unwind.unwinder import Unwinder, UnwoundStack
from tests.collector.system.elf_builder import BASE as LINKED_AT
from tests.collector.system.elf_builder import BytesReader, TinyElf
from tests.collector.unwind.targets import BASE, OneFile, code_made_at_run_time

STACK = 0x7FFF00000000
JIT = BASE + 0x10000000


def tiny(code: bytes, machine: int = 62) -> tuple[bytes, int]:
    """A library without any unwind tables, and where this code is in it."""
    content = TinyElf(machine=machine, sections={".text": code}).build()
    return content, content.index(code)


def unwind(
    target: OneFile, pc: int, frame_pointer: int, words: list[int], machine: Machine = X86_64
) -> UnwoundStack:
    registers = {
        machine.program_counter: pc,
        machine.stack_pointer: STACK,
        machine.frame_pointer: frame_pointer,
    }
    stack = struct.pack(f"<{len(words)}Q", *words)
    with CodeModules(target) as modules:
        return Unwinder(modules, machine.name).unwind(registers, STACK, stack)


def with_compiled_code() -> OneFile:
    target = OneFile(tiny(b"\xcc" * 64)[0])
    target.others.append(code_made_at_run_time(JIT))
    return target


def test_code_made_at_run_time_is_followed_by_its_frame_pointers() -> None:
    words = [7, 7, STACK + 48, JIT + 0x20, 7, 7, 0, JIT + 0x30]
    found = unwind(with_compiled_code(), JIT + 0x10, STACK + 16, words)
    assert found == UnwoundStack((JIT + 0x10, JIT + 0x20, JIT + 0x30), "root")


@pytest.mark.parametrize(
    "frame_pointer",
    [0, 3, STACK - 8, STACK + 4, STACK + (1 << 30)],
    ids=["zero", "no address", "below the stack", "unaligned", "far away"],
)
def test_a_register_that_holds_something_else_is_no_frame_pointer(frame_pointer: int) -> None:
    found = unwind(with_compiled_code(), JIT + 0x10, frame_pointer, [JIT + 0x20] * 64)
    assert found == UnwoundStack((JIT + 0x10,), "jit")


def test_a_frame_pointer_that_leads_to_data_is_not_believed() -> None:
    words = [0, 0, STACK + 48, STACK + 8]
    assert unwind(with_compiled_code(), JIT + 0x10, STACK + 16, words).pcs == (JIT + 0x10,)


def test_in_a_file_a_guess_must_lead_to_behind_a_call() -> None:
    call, no_call = b"\x90" * 8 + b"\xe8\0\0\0\0" + b"\x90" * 8, b"\x90" * 21
    for code, expected in ((call, 2), (no_call, 1)):
        content, at = tiny(code)
        target = OneFile(content)
        target.others.append(code_made_at_run_time(JIT))
        words = [STACK + 32, BASE + at + 13, 0, 0, 0, 0]
        found = unwind(target, JIT + 0x10, STACK, words)
        assert len(found.pcs) == expected


@pytest.mark.parametrize(
    ("call", "is_call"),
    [
        ("9090 e800000000", True),
        ("9090909090 ffd0", True),
        ("90909090 41ffd4", True),
        ("9090909 0ff5018", True),
        ("909090 ff542418", True),
        ("90 ff1500000000", True),
        ("ff942400010000", True),
        ("90909090909090", False),
        ("90909090 ffe090", False),
    ],
)
def test_calls_of_x86_are_known_from_behind(call: str, is_call: bool) -> None:
    code = b"\x90" + bytes.fromhex(call.replace(" ", ""))
    assert X86_64.ends_with_call(code[-8:]) is is_call


@pytest.mark.parametrize(
    ("word", "is_call"),
    [
        (0x94000010, True), (0x97FFFFF0, True), (0xD63F0100, True), (0xD63F091F, True),
        (0xD73F0A11, True), (0xD65F03C0, False), (0xD61F0100, False), (0x14000010, False),
    ],
)  # fmt: skip
def test_calls_of_aarch64_are_known(word: int, is_call: bool) -> None:
    """bl, bl, blr, blraaz, blraa; ret, br, b."""
    assert AARCH64.ends_with_call(struct.pack("<QI", 0, word)[-8:]) is is_call


def test_a_signal_frame_without_a_table_gives_back_the_registers_of_what_was_interrupted() -> None:
    """As in musl and Go: the code that a handler returns to is known by its bytes."""
    content, at = tiny(b"\x90" + X86_64.signal_code)
    saved = {16: JIT + 0x18, 6: STACK + 232, 7: STACK + 200}
    words = [0] * 40
    for place, register in enumerate((8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16)):
        words[5 + place] = saved.get(register, 0)
    words[29:31] = [0, JIT + 0x30]
    target = OneFile(content)
    target.others.append(code_made_at_run_time(JIT))
    found = unwind(target, BASE + at + 1, 0, words)
    assert found == UnwoundStack((BASE + at + 1, JIT + 0x18, JIT + 0x30), "root", (1,))


def test_a_signal_frame_of_aarch64_is_known_by_its_code_too() -> None:
    content, at = tiny(b"\x1f\x20\x03\xd5" + AARCH64.signal_code, machine=183)
    words = [0] * 90
    words[39 + 29] = STACK + 640
    words[39 + 31], words[39 + 32] = STACK + 600, JIT + 0x18
    words[80:82] = [0, JIT + 0x30]
    target = OneFile(content)
    target.others.append(code_made_at_run_time(JIT))
    found = unwind(target, BASE + at + 4, 0, words, AARCH64)
    assert found == UnwoundStack((BASE + at + 4, JIT + 0x18, JIT + 0x30), "root", (1,))


def test_an_address_in_no_code_is_no_place() -> None:
    assert unwind(with_compiled_code(), STACK, STACK, [0] * 8) == UnwoundStack((), "no-module")


def test_the_limit_ends_a_stack_with_a_word_of_its_own() -> None:
    words = [word for index in range(64) for word in (STACK + 16 * (index + 1), JIT + 0x20)]
    with CodeModules(with_compiled_code()) as modules:
        registers = {16: JIT + 8, 7: STACK, 6: STACK}
        stack = struct.pack("<128Q", *words)
        found = Unwinder(modules, "x86_64").unwind(registers, STACK, stack, 10)
    assert (len(found.pcs), found.end) == (10, "depth")


def test_where_the_copy_ends_the_stack_does() -> None:
    found = unwind(with_compiled_code(), JIT + 8, STACK, [STACK + 64, JIT + 0x20, 0, 0])
    assert found == UnwoundStack((JIT + 8, JIT + 0x20), "copied-bytes")


def test_a_frame_is_told_by_the_address_that_its_file_counts() -> None:
    content, at = tiny(b"\x90" * 32)
    target = OneFile(content, BASE)
    with CodeModules(target) as modules:
        unwinder = Unwinder(modules, "x86_64")
        (frame,) = unwinder.frames(UnwoundStack((BASE + at + 9,), "no-rule"))
    assert frame.module is not None and frame.module.path == "/lib/one.so"
    assert ElfFile(BytesReader(content)).lowest_load_address == LINKED_AT
    assert (frame.address, frame.after_call, frame.code) == (LINKED_AT + at + 9, True, "native")


def test_code_that_is_mapped_later_is_known_after_a_refresh() -> None:
    target = OneFile(tiny(b"\x90" * 32)[0])
    words = [0, JIT + 0x20]
    registers, stack = {16: JIT + 8, 7: STACK, 6: STACK}, struct.pack("<2Q", *words)
    with CodeModules(target) as modules:
        unwinder = Unwinder(modules, "x86_64")
        assert unwinder.unwind(registers, STACK, stack).pcs == ()
        target.others.append(code_made_at_run_time(JIT))
        unwinder.refresh()
        assert unwinder.unwind(registers, STACK, stack).pcs == (JIT + 8, JIT + 0x20)
        assert modules.executable_ranges()[-1] == (JIT, JIT + 4096)


def test_code_that_was_copied_to_huge_pages_is_still_its_files() -> None:
    """The middle of a file's code, mapped anew without a name, as Node.js does."""
    content = tiny(b"\x90" * 0x5000)[0]
    target = OneFile(content)
    (whole,) = target.mappings()
    first = whole._replace(end=BASE + 0x1000)
    middle = whole._replace(start=BASE + 0x1000, end=BASE + 0x3000, inode=0, path=b"")
    last = whole._replace(start=BASE + 0x3000, offset=0x3000)
    jit = code_made_at_run_time(whole.end)
    target.mappings = lambda: [first, middle, last, jit]  # type: ignore[method-assign]
    with CodeModules(target) as modules:
        place = modules.place(BASE + 0x2345)
        assert place is not None and place.module is not None
        assert (place.module.path, place.address) == ("/lib/one.so", LINKED_AT + 0x2345)
        compiled = modules.place(whole.end + 5)
        assert compiled is not None and compiled.module is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakcase_collector.unwind.unwinder._REMEMBERED_MAX", 50)
    with CodeModules(with_compiled_code()) as modules:
        unwinder = Unwinder(modules, "x86_64")
        for offset in range(1, 300):
            registers = {16: JIT + offset, 7: STACK, 6: 0}
            assert unwinder.unwind(registers, STACK, b"").pcs == (JIT + offset,)
        assert len(unwinder._after_call) <= 50


def test_a_file_that_was_replaced_is_read_as_it_was_mapped(tmp_path: Path) -> None:
    """See the live tests of `modules`: here, that the path is told without the kernel's mark."""
    target = OneFile(tiny(b"\x90" * 32)[0])
    (mapping,) = target.mappings()
    target.mappings = lambda: [mapping._replace(path=b"/lib/one.so (deleted)")]  # type: ignore[method-assign]
    with CodeModules(target) as modules:
        place = modules.place(BASE + 8)
        assert place is not None and place.module is not None
        assert (place.module.path, place.module.is_deleted) == ("/lib/one.so", True)
        assert place.module.elf is not None
