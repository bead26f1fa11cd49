"""Where a probe is put within a function: cheap, past by every call, with the arguments intact."""

from __future__ import annotations

from collections.abc import Sequence

from leakcase_collector.trace.probe_site import MACHINES, ProbeSite, choose_site

NOW, OLD = (6, 18), (4, 14)
START = 0x4000


def site(
    code: str,
    wanted: Sequence[int] = (0,),
    returns: bool = True,
    null_is_nothing: bool = False,
    kernel: tuple[int, int] = NOW,
) -> ProbeSite | None:
    return choose_site(
        MACHINES["x86_64"],
        bytes.fromhex(code),
        START,
        wanted,
        returns=returns,
        null_is_nothing=null_is_nothing,
        kernel=kernel,
    )


def offset(found: ProbeSite | None) -> tuple[int, bool] | None:
    return (found.address - START, found.emulated) if found else None


TEST, JE, JNE, PUSH, SUB = "4885ff", "7410", "7510", "53", "4883ec18"
GLIBC_FREE = TEST + JE + "55" + "488d77f0" + PUSH + SUB


def test_free_is_watched_behind_its_test_for_null() -> None:
    assert offset(site(GLIBC_FREE, returns=False, null_is_nothing=True)) == (5, True)


def test_only_null_may_be_skipped_and_only_by_calls_that_do_nothing_then() -> None:
    assert offset(site(GLIBC_FREE)) == (3, True)  # at the branch, that every call reaches
    assert offset(site(TEST + JNE + "55", returns=False, null_is_nothing=True)) == (3, True)
    assert offset(site("4885f6" + JE + "55", returns=False, null_is_nothing=True)) == (3, True)


def test_without_a_cheap_place_the_first_one_is_taken_and_said_to_be_costly() -> None:
    assert offset(site(SUB + "c3")) == (0, False)
    assert offset(site(TEST + SUB + "e800000000")) == (0, False)


def test_a_return_is_watched_only_while_its_address_is_on_top_of_the_stack() -> None:
    after_sub = SUB + "0f8400000000"
    assert offset(site(after_sub)) == (0, False)
    assert offset(site(after_sub, returns=False)) == (4, True)
    assert offset(site("4889f8" + PUSH)) == (3, True)


def test_an_argument_is_followed_into_the_register_that_it_was_copied_to() -> None:
    # mimalloc's malloc: mov %rdi,%rsi; mov %fs:(%rax),%rdi; cmp $1024,%rsi; ja
    found = site("4889fe" + "64488b38" + "4881fe00040000" + "7710")
    assert offset(found) == (14, True)
    assert found is not None and found.arguments == (6,)


def test_beyond_where_an_argument_is_lost_there_is_no_place() -> None:
    assert offset(site("31ff" + PUSH)) == (0, False)  # xor %edi,%edi
    assert offset(site("89ff" + PUSH)) == (0, False)  # its upper half is cleared
    assert offset(site("48f7e6" + PUSH, wanted=(0, 2))) == (0, False)  # mul writes rdx
    assert offset(site("48f7e6" + PUSH, wanted=(0, 1))) == (3, True)


def test_a_place_that_the_function_jumps_back_to_would_count_twice() -> None:
    # mov %rdi,%rax; L: push; pop; dec; jne L
    looping = "4889f8" + "53" + "5b" + "48ffc8" + "75f9" + "c3"
    assert offset(site(looping)) == (0, False)
    assert offset(site(looping[:-6] + "7500" + "c3")) == (3, True)


def test_what_comes_after_an_unknown_instruction_is_not_looked_at() -> None:
    assert offset(site("c5f96ec7" + PUSH)) is None  # vmovd: no place for a probe either
    assert offset(site("0fa2" + PUSH)) == (0, False)  # cpuid


def test_a_landing_pad_is_passed_over() -> None:
    assert offset(site("f30f1efa" + "4157" + "4156")) == (4, True)


def test_a_jump_at_the_entry_is_cheap_and_what_lies_behind_is_not_ours() -> None:
    assert offset(site("e9fbffff7f" + PUSH)) == (0, True)
    assert offset(site("ff2500000000" + PUSH)) == (0, False)


def test_an_older_kernel_single_steps_more() -> None:
    assert offset(site("53" + "7400", kernel=OLD)) == (0, False)
    assert offset(site("0f1f4000" + "7400", kernel=(6, 12))) == (4, True)
    assert offset(site("0f1f4000" + "7400", kernel=NOW)) == (0, True)


def test_nothing_at_all_yields_no_place() -> None:
    assert site("") is None and site("06") is None and site("0f0b") is None
