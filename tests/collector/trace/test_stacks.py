"""Many keys of the kernel's are few true stacks, each told once, named only then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import pytest

from leakcase_bundle.records import CodeFrame, CodeStack
from leakcase_collector.redact import Redactor
from leakcase_collector.trace import stacks as stacks_module
from leakcase_collector.trace.stacks import Place, StackTable, sums
from leakcase_collector.unwind.modules import CodeModule
from leakcase_collector.unwind.unwinder import Frame, UnwoundStack

PROGRAM = CodeModule("/opt/secret/bin/server", 7, False)


class Copied(NamedTuple):
    """What the kernel copied; here the stack is a list of addresses of code."""

    key: int
    pcs: tuple[int, ...]
    sp: int = 0
    registers: Sequence[int] = ()
    stack: bytes = b""


class Unwinds:
    """Hands on what the copies hold; addresses from 1000 on are in no file."""

    def __init__(self, copies: Sequence[Copied]) -> None:
        self._copies = list(copies)

    def unwind(self, registers: object, start: int, stack: bytes) -> UnwoundStack:
        pcs = self._copies.pop(0).pcs
        return UnwoundStack(pcs, "root" if pcs[-1] == 1 else "copied-bytes", ())

    def frames(self, stack: UnwoundStack) -> list[Frame]:
        return [Frame(pc, PROGRAM if pc < 1000 else None, pc, True) for pc in stack.pcs]


class Names:
    """Knows every address of the program, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def name(self, module: Optional[CodeModule], place: Place) -> Optional[tuple[str, int]]:
        self.asked += 1
        return None if module is None else (f"f{place.address}", 4)


def table(copies: Sequence[Copied], names: Optional[Names] = None, **options: Any) -> StackTable:
    made = StackTable(
        Unwinds(copies),  # type: ignore[arg-type]
        names or Names(),
        Redactor(**options),
    )
    made.learn(copies)
    return made


def test_keys_that_unwind_alike_are_one_stack() -> None:
    made = table([Copied(10, (3, 2, 1)), Copied(11, (3, 2, 1)), Copied(12, (4, 2, 1))])
    assert made.number(10) == made.number(11) != made.number(12)
    assert made.number(99) is None


def test_a_key_is_unwound_once() -> None:
    made = table([Copied(10, (3, 1))])
    made.learn([Copied(10, (5, 1))])
    assert made.number(10) == 0


def test_stacks_and_frames_are_told_once_and_share_their_frames() -> None:
    names = Names()
    made = table([Copied(1, (3, 2, 1)), Copied(2, (4, 2, 1)), Copied(3, (5, 1))], names)
    assert names.asked == 0, "names cost time, and most stacks are never told"
    told = made.records([0, 1])
    assert [type(one) for one in told].count(CodeStack) == 2
    frames = {one.frame: one for one in told if isinstance(one, CodeFrame)}
    assert [frames[frame].function for frame in told[-1].frames] == ["f4", "f2", "f1"]
    assert len(frames) == names.asked == 4
    assert made.records([0, 1]) == []
    assert len(made.records([0, 2])) == 2, "a stack and one frame are new"


def test_a_path_is_redacted_and_an_address_outside_of_files_left_out() -> None:
    told = table([Copied(1, (3, 5000, 1))]).records([0])
    inside, outside = told[0], told[1]
    assert str(inside.module).endswith("/server")
    assert "secret" not in str(inside.module)
    assert (inside.address, inside.function_offset) == (3, 4)
    assert (outside.code, outside.module, outside.address) == ("jit", None, None)


def test_without_symbols_no_function_is_named() -> None:
    told = table([Copied(1, (3, 1))], keep_symbols=False).records([0])
    assert all(one.function is one.function_offset is None for one in told[:-1])


def test_a_stack_that_was_cut_is_counted() -> None:
    made = table([Copied(1, (3, 2, 1)), Copied(2, (3, 2))])
    assert made.short([0, 1]) == 1
    assert made.records([1])[-1].end == "copied-bytes"


def test_beyond_the_limit_stacks_are_counted_and_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stacks_module, "STACKS_MAX", 2)
    made = table([Copied(key, (key + 2, 1)) for key in range(5)])
    assert made.folded == 3
    assert [made.number(key) for key in range(5)] == [0, 1, None, None, None]


def test_the_numbers_of_a_table_go_on_where_another_ended() -> None:
    before = table([Copied(1, (3, 1)), Copied(2, (4, 1))])
    before.records([0, 1])
    assert before.free_numbers == (2, 3)
    copies = [Copied(1, (3, 1))]
    after = StackTable(
        Unwinds(copies),  # type: ignore[arg-type]
        Names(),
        Redactor(),
        first=before.free_numbers,
    )
    after.learn(copies)
    assert after.number(1) == 2
    assert after.short([2]) == 0
    assert [getattr(one, "frame", None) for one in after.records([2])] == [3, 4, None]


def test_figures_of_keys_are_summed_by_stack_and_those_without_one_are_lost() -> None:
    made = table([Copied(10, (3, 1)), Copied(11, (3, 1)), Copied(12, (4, 1))])
    found, lost = sums({10: (1, 100), 11: (2, 200), 12: (4, 400), 13: (8, 800)}, made)
    assert found == {0: [3, 300], 1: [4, 400]}
    assert lost == 8


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("/srv/acme/orders.py", "/srv/<dir:1>/orders.py"),
        ("<frozen importlib._bootstrap>", "frozen:importlib._bootstrap"),
        ("a customer's token", "<file:1>"),
        ("hunter2token", "<file:1>"),  # compile(text, "hunter2token", "exec")
        ("<string>", "<file:1>"),
        ("main.py", "main.py"),
    ],
)
def test_a_source_files_name_stays_and_a_text_that_a_program_compiled_has_none(
    file: str, told: str
) -> None:
    class Weaves:
        def weave(self, frames: object, sample: object, name_of: object) -> list[Place]:
            return [Place("python", None, None, None, "serve", file, 7)]

    copies = [Copied(1, (3, 1))]
    made = StackTable(
        Unwinds(copies),  # type: ignore[arg-type]
        Names(),
        Redactor(),
        Weaves(),
    )
    made.learn(copies)
    (frame,) = [one for one in made.records([0]) if isinstance(one, CodeFrame)]
    assert frame.file == told and frame.file.is_well_formed()
