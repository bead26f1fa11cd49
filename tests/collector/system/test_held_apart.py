"""What a process of its own holds for us: undone whatever becomes of either, and in bounds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from leakcase_collector.errors import LimitReached, NotPermitted
from leakcase_collector.system.held_apart import HeldApart, Until
from tests.collector.system import started

wait_until = partial(started.wait_until, seconds=10)


def holding(place: Path) -> Callable[[ExitStack], None]:
    """A file stands for what is held."""

    def set_up(undo: ExitStack) -> None:
        place.touch()
        undo.callback(place.unlink)

    return set_up


def test_it_is_there_until_released_and_then_gone(tmp_path: Path) -> None:
    place = tmp_path / "held"
    held = HeldApart(holding(place))
    assert place.exists()
    assert not held.has_ended
    held.release()
    assert not place.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(held.pid, 0)
    held.release()


def test_who_holds_it_is_not_the_first_choice_of_the_oom_killer_as_we_are(tmp_path: Path) -> None:
    own = Path("/proc/self/oom_score_adj")
    before = own.read_text()
    try:
        own.write_text("1000")
        held = HeldApart(holding(tmp_path / "held"))
    finally:
        own.write_text(before)
    assert Path(f"/proc/{held.pid}/oom_score_adj").read_text() == "0\n"
    held.release()


def test_a_refusal_is_raised_here_and_what_was_done_is_undone(tmp_path: Path) -> None:
    place = tmp_path / "held"

    def set_up(undo: ExitStack) -> None:
        holding(place)(undo)
        raise NotPermitted("no.")

    with pytest.raises(NotPermitted, match=r"no\."):
        HeldApart(set_up)
    assert not place.exists()


def test_one_that_hangs_is_left_to_itself_and_undoes_what_it_did_all_the_same(
    tmp_path: Path,
) -> None:
    place, went_on = tmp_path / "held", tmp_path / "on"

    def set_up(undo: ExitStack) -> None:
        holding(place)(undo)
        wait_until(went_on.exists)

    began = time.monotonic()
    with pytest.raises(LimitReached, match="could not set up") as refused:
        HeldApart(set_up, patience_seconds=0.1)
    assert time.monotonic() - began < 5
    assert refused.value.gap_detail == "uprobe"
    assert place.exists()
    went_on.touch()
    wait_until(lambda: not place.exists())


def test_one_that_cannot_undo_is_not_waited_for_without_end(tmp_path: Path) -> None:
    went_on = tmp_path / "on"
    held = HeldApart(
        lambda undo: undo.callback(wait_until, went_on.exists) and None, patience_seconds=0.1
    )
    with pytest.raises(LimitReached, match="could not undo"):
        held.release()
    went_on.touch()
    os.waitpid(held.pid, 0)


def test_one_that_was_stopped_goes_on_when_it_is_to_undo(tmp_path: Path) -> None:
    place = tmp_path / "held"
    held = HeldApart(holding(place))
    os.kill(held.pid, signal.SIGSTOP)
    held.release()
    assert not place.exists()


def test_one_that_was_stopped_goes_on_at_the_next_sign_of_life(tmp_path: Path) -> None:
    held = HeldApart(holding(tmp_path / "held"))
    os.kill(held.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, held.pid, os.WSTOPPED)
    held.give_sign()
    os.waitid(os.P_PID, held.pid, os.WCONTINUED)
    held.release()


def test_one_that_was_killed_is_noticed(tmp_path: Path) -> None:
    held = HeldApart(holding(tmp_path / "held"))
    os.kill(held.pid, signal.SIGKILL)
    wait_until(lambda: held.has_ended)
    held.give_sign()
    held.release()


def test_who_gives_no_sign_of_life_has_it_undone(tmp_path: Path) -> None:
    place = tmp_path / "held"
    held = HeldApart(holding(place), Until(silent_seconds=1))
    wait_until(lambda: held.has_ended)
    wait_until(lambda: not place.exists())
    held.release()


@pytest.mark.parametrize("holder_is", ["running", "stopped"])
def test_it_is_undone_when_we_are_killed_though_it_was_stopped(
    holder_is: str, tmp_path: Path
) -> None:
    place, number = tmp_path / "held", tmp_path / "number"
    child = os.fork()
    if not child:
        held = HeldApart(holding(place))
        number.write_text(f"{held.pid}\n")
        while True:
            signal.pause()
    wait_until(lambda: number.exists() and number.read_text().endswith("\n"))
    if holder_is == "stopped":
        os.kill(int(number.read_text()), signal.SIGSTOP)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_until(lambda: not place.exists())
