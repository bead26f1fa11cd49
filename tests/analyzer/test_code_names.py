"""After which of its frames a stack is named."""

from __future__ import annotations

import pytest

from leakcase_analyzer.code_names import place, responsible
from leakcase_analyzer.trace_looks import Frame, Stack

SERVER, EVENTS, MAIN = "/usr/bin/server", "/usr/lib/libevent-2.1.so.7", "/usr/bin/main"


def native(module: str, function: str | None = None, address: int = 0x1000) -> Frame:
    return Frame("native", module, function, address=address)


@pytest.mark.parametrize(
    ("frames", "named"),
    [
        # As memcached is in Debian: no symbols, and a library's loop in the midst of its stack.
        (
            [
                native("/usr/lib/libc.so.6", "malloc"),
                native(SERVER, address=0x11D1D),
                native(SERVER, address=0x127E8),
                native(EVENTS, "event_base_loop"),
                native(SERVER, address=0x17B),
            ],
            "server+0x11d1d",
        ),
        # As PostgreSQL is: its static functions have none.
        (
            [native(SERVER), native(SERVER, "copyObject"), native(EVENTS, "event_base_loop")],
            "copyObject",
        ),
        # A library without symbols: who calls it may say more.
        ([native(EVENTS), native(MAIN, "read_all"), native(MAIN, "main")], "read_all"),
        (
            [
                native(SERVER),
                Frame("python", None, "handle", file="/home/service.py", line=3),
                native(SERVER),
            ],
            "handle",
        ),
    ],
    ids=["a-loop-in-between", "its-own-caller", "a-library-s-caller", "python"],
)
def test_code_without_a_name_is_named_after_its_callers_but_not_after_what_it_calls(
    frames: list[Frame], named: str
) -> None:
    found = responsible(Stack(tuple(frames)))
    assert found is not None
    assert place(found) == named


def test_what_a_program_compiled_from_a_text_is_its_own_and_frozen_modules_are_pythons() -> None:
    own = Frame("python", function="keep", file="<file:1>")
    loader = Frame("python", function="_find_and_load", file="<file:2>")
    joining = Frame("python", function="join", file="frozen:posixpath")
    serving = Frame("python", function="serve", file="/srv/<dir:1>/app.py")
    assert responsible(Stack((joining, loader, own, serving))) == own


@pytest.mark.parametrize(
    "library",
    [
        native(MAIN, "<&dyn core::ops::function::Fn<()> as core::ops::function::FnOnce<()>>::call"),
        Frame("native", MAIN, "shared_ptr", file="/usr/include/c++/12/bits/shared_ptr.h", line=3),
        Frame("native", MAIN, "boost::make_node", file="/usr/include/boost/node.hpp", line=3),
        Frame("native", MAIN, "spec_extend", file="/rustc/0123/library/alloc/src/vec/mod.rs"),
    ],
    ids=lambda frame: frame.function,
)
def test_code_of_a_library_that_is_compiled_into_a_program_is_nobodys(library: Frame) -> None:
    own = Frame("native", MAIN, "keep", file="/home/me/src/main.cpp", line=9)
    assert responsible(Stack((library, own))) == own
