"""Names of code that a runtime wrote, from the map that it leaves in its own /tmp."""

from __future__ import annotations

import os
import time
from pathlib import Path

from leakcase_collector.system.door import System
from leakcase_collector.trace.jit_names import JitName, JitNames

MAP = """\
7f0000001000 100 LazyCompile:*grow /srv/app/cache.js:12:7
7f0000001100 80 LazyCompile:~ node:internal/timers:500:9
7f0000002000 40 py::Session.open:/srv/app/session.py
7f0000003000 20 Lcom/example/Cache;::put
not a line
7f0000004000 zz broken
7f0000001080 10 Builtin:Later
7f0000005000 10 RegExp:^Bearer [a-f0-9]+$
7f0000005100 10 JS:~ :1:20
7f0000005200 10 TRACE-5$/srv/acme/pay.php:20
7f0000005300 10 JS:~f /srv/app/x.js:99999999999999999999999999:1
"""


class Recorded:
    """A process 7 that is number 42 to itself, with a map in its own root."""

    def __init__(self, root: Path, uid: int | None = None) -> None:
        self.map = root / "7" / "root" / "tmp" / "perf-42.map"
        self.map.parent.mkdir(parents=True)
        uid = os.getuid() if uid is None else uid
        status = f"Name:\tnode\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t7\t42\n"
        (root / "7" / "status").write_text(status)
        self.names = JitNames(System(proc=str(root)), 7)


def test_each_piece_of_code_has_its_name_and_where_it_stands(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.map.write_text(MAP)
    name_of = recorded.names.name_of
    assert name_of(0x7F0000001010) == JitName("grow", 0x10, "/srv/app/cache.js", 12)
    assert name_of(0x7F0000001100) == JitName("(anonymous)", 0, "node:internal/timers", 500)
    assert name_of(0x7F000000203F) == JitName("Session.open", 0x3F, "/srv/app/session.py", None)
    assert name_of(0x7F0000003001) == JitName("Lcom/example/Cache;::put", 1, None, None)
    assert name_of(0x7F0000002040) is None and name_of(0x7F0000004000) is None
    assert name_of(0) is None


def test_what_a_program_may_hide_in_a_name_is_not_told(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.map.write_text(MAP)
    name_of = recorded.names.name_of
    assert name_of(0x7F0000005000) == JitName("RegExp", 0, None, None)
    assert name_of(0x7F0000005100) == JitName("(anonymous)", 0, None, 1)
    assert name_of(0x7F0000005200) == JitName("TRACE-5", 0, None, None)
    huge = name_of(0x7F0000005300)
    assert huge is not None and huge.line is None and "/" not in huge.name


def test_a_map_that_is_written_anew_while_it_is_used_has_no_names(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.map.write_text(MAP)
    assert recorded.names.name_of(0x7F0000001010) is not None
    recorded.map.write_text("x" * 4096)
    assert recorded.names.name_of(0x7F0000001010) is None


def test_code_written_over_other_code_is_what_is_there_now(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.map.write_text(MAP)
    later = recorded.names.name_of(0x7F0000001085)
    assert later is not None and (later.name, later.offset) == ("Builtin:Later", 5)
    outside = recorded.names.name_of(0x7F0000001090)
    assert outside is not None and outside.name == "grow"


def test_a_map_that_has_grown_is_read_again(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    assert recorded.names.name_of(0x5000) is None  # there is no map yet
    recorded.map.write_text("5000 10 first\n")
    assert recorded.names.name_of(0x5000) is not None
    with recorded.map.open("a") as file:
        file.write("6000 10 second\n")
    time.sleep(0.1)  # it is not read again at once
    second = recorded.names.name_of(0x600F)
    assert second is not None and second.name == "second"


def test_a_map_of_another_user_is_not_believed(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, uid=os.getuid() + 1)
    recorded.map.write_text(MAP)
    assert recorded.names.name_of(0x7F0000001010) is None


def test_a_fifo_or_a_link_to_elsewhere_in_its_place_is_left_alone(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    os.mkfifo(recorded.map)
    assert recorded.names.name_of(0x7F0000001010) is None
    recorded.map.unlink()
    outside = tmp_path / "outside.map"
    outside.write_text(MAP)
    recorded.map.symlink_to(outside)  # leads out of the target's root
    assert recorded.names.name_of(0x7F0000001010) is None
