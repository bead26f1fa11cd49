"""Our decoder of aarch64 against llvm-objdump, on code that clang made for it."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from leakcase_collector.trace.aarch64 import LINK, STACK, decode
from leakcase_collector.trace.instructions import (
    ALWAYS,
    BRANCH,
    CALL,
    EVERY_REGISTER,
    JUMP,
    RETURN,
    Instruction,
)
from leakcase_collector.trace.probe_site import MACHINES, choose_site

SOURCE = r"""
typedef unsigned long size_t;
struct arena { size_t used, limit; char *base; struct arena *next; int lock; double ratio; };
extern struct arena *find(size_t); extern void *map(size_t, int); extern int errno_of(void);
static __thread struct arena *mine; struct arena first; extern long table[64]; volatile int busy;
void *malloc(size_t size) {
    struct arena *a = mine ? mine : find(size);
    if (size > (1ul << 40)) { errno_of(); return 0; }
    while (a && a->limit - a->used < size) a = a->next;
    if (!a) return map(size, 3);
    __atomic_fetch_add(&a->used, size, __ATOMIC_RELAXED);
    a->ratio = a->ratio * 0.5 + size;
    return a->base + a->used;
}
void free(void *p) { if (p) { table[((size_t)p >> 4) & 63]++; busy = 0; find((size_t)p); } }
void *realloc(void *p, size_t n) { void *q = malloc(n); char *a = p, *b = q;
    for (size_t i = 0; i < n; i++) b[i] = a[i] ^ (char)(i * 7 / 3); free(p); return q; }
void *calloc(size_t n, size_t m) { unsigned __int128 x = (unsigned __int128)n * m;
    return x >> 64 ? 0 : malloc((size_t)x); }
int pick(int k) { switch (k) { case 1: return 5; case 2: return busy; case 7: return -1;
    case 9: return errno_of(); default: return k & 8 ? k % 5 : k << 3; } }
double mean(double *v, int n) { double s = 0; for (int i = 0; i < n; i++) s += v[i]; return s / n; }
"""
#: Up to LLVM 14 the four bytes as they lie, later the word.
_LINE = re.compile(r"^\s*([0-9a-f]+): ((?:[0-9a-f]{2} ){4}|[0-9a-f]{8} )\s*(\S+)\s*(.*)$")
_FLOWS = {"b": JUMP, "bl": CALL, "br": JUMP, "blr": CALL, "ret": RETURN}
_BRANCHES = re.compile(r"^(b\.\w+|cbn?z|tbn?z)$")
_STORES = re.compile(r"^st[ul]?[rpx]")
_NO_RESULT = re.compile(
    r"^(cmp|cmn|tst|ccm[pn]|fcmpe?|nop|hint|bti|paci|auti|prfm|dmb|b|ret|udf|brk)"
)
_GENERAL = re.compile(r"^[xw](\d+)$")


@pytest.fixture(
    scope="module", params=[(), ("-mbranch-protection=standard",)], ids=["plain", "pac"]
)
def object_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (shutil.which("clang") and shutil.which("llvm-objdump")):
        pytest.skip("clang and llvm-objdump are not installed")
    made: Path = tmp_path_factory.mktemp("aarch64") / "code.o"
    command = ["clang", "--target=aarch64-linux-gnu", "-O2", "-w", "-fno-builtin", *request.param]
    subprocess.run(
        [*command, "-c", "-x", "c", "-", "-o", str(made)], input=SOURCE.encode(), check=True
    )
    return made


def listed(path: Path) -> dict[str, list[tuple[int, int, str, str]]]:
    """By function: address, word, mnemonic, operands, as llvm-objdump prints them."""
    output = subprocess.run(
        ["llvm-objdump", "--disassemble", "--no-symbolic-operands", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    functions: dict[str, list[tuple[int, int, str, str]]] = {}
    lines: list[tuple[int, int, str, str]] = []
    for row in output.splitlines():
        named = re.match(r"^[0-9a-f]+ <(\w+)>:$", row)
        if named:
            lines = functions.setdefault(named[1], [])
        match = _LINE.match(row.replace("\t", " "))
        if match:
            digits = match[2].split()
            number = int.from_bytes(
                bytes.fromhex("".join(digits)), "little" if digits[1:] else "big"
            )
            operands = re.split("//|<", match[4])[0].strip()
            lines.append((int(match[1], 16), number, match[3], operands))
    return functions


def code_of(lines: list[tuple[int, int, str, str]]) -> bytes:
    return b"".join(struct.pack("<I", word) for _, word, _, _ in lines)


def test_flow_targets_and_results_are_as_the_disassembler_has_them(object_file: Path) -> None:
    kinds: set[str] = set()
    for lines in listed(object_file).values():
        for address, word, mnemonic, operands in lines:
            found = decode(struct.pack("<I", word), 0, address)
            assert found is not None
            where = (hex(address), mnemonic, operands, found)
            expected = BRANCH if _BRANCHES.match(mnemonic) else _FLOWS.get(mnemonic, "plain")
            assert found.flow == expected, where
            if found.target is not None:
                last = operands.split(",")[-1].strip().lstrip("#")
                assert found.target == int(last, 16), where
            _assert_result(found, mnemonic, operands, where)
            kinds.add(mnemonic)
    assert {"b", "bl", "ret", "cbz", "stp", "ldp", "adrp", "mov", "ldr", "str"} <= kinds
    assert any(_BRANCHES.match(kind) for kind in kinds)


def _assert_result(found: Instruction, mnemonic: str, operands: str, where: object) -> None:
    """The first operand is what most change; with "!" or a last number the base changes too."""
    if found.changes == EVERY_REGISTER:
        return
    first = _GENERAL.match(operands.split(",")[0].strip())
    without = (_STORES, _NO_RESULT, _BRANCHES)
    if first and not any(pattern.match(mnemonic) for pattern in without):
        assert found.changes >> int(first[1]) & 1, where
    if "[sp" in operands and (operands.endswith("!") or re.search(r"\], #", operands)):
        assert found.changes >> STACK & 1, where
    if mnemonic in ("sub", "add") and operands.startswith("sp,"):
        assert found.changes >> STACK & 1, where
    if _STORES.match(mnemonic):
        assert found.changes & ~(1 << STACK) & 0x7FFFFFFF in _bases(operands), where
        assert found.saves_return == ("x30" in operands.partition("[")[0]), where


def _bases(operands: str) -> set[int]:
    """What a store may change besides sp: nothing, or its base."""
    base = re.search(r"\[x(\d+)", operands)
    writes = operands.endswith("!") or re.search(r"\], #", operands)
    return {1 << int(base[1])} if base and writes else {0}


def test_a_place_is_found_where_the_arguments_and_the_return_address_are_intact(
    object_file: Path,
) -> None:
    machine = MACHINES["aarch64"]
    functions = listed(object_file)
    for name, wanted in (("malloc", (0,)), ("calloc", (0, 1)), ("realloc", (0, 1))):
        lines = functions[name]
        site = choose_site(
            machine, code_of(lines), lines[0][0], wanted, returns=True, kernel=(6, 12)
        )
        assert site is not None
        before = [line for line in lines if line[0] < site.address]
        # A signed return address must not be replaced, nor one that is saved already.
        assert not any(mnemonic.startswith(("paci", "hint")) for _, _, mnemonic, _ in before)
        assert not any("x30" in operands for _, _, _, operands in before)
        assert site.arguments == wanted


def test_free_is_watched_at_its_branch_for_null_or_behind_it(object_file: Path) -> None:
    lines = listed(object_file)["free"]
    site = choose_site(
        MACHINES["aarch64"],
        code_of(lines),
        lines[0][0],
        (0,),
        returns=False,
        null_is_nothing=True,
        kernel=(6, 12),
    )
    assert site is not None and site.emulated
    null_test = next(line for line in lines if line[2] == "cbz")
    assert site.address > null_test[0]


def word(value: int) -> Instruction:
    found = decode(struct.pack("<I", value), 0, 0x1000)
    assert found is not None
    return found


def test_the_kernel_s_own_rules_say_which_instructions_it_carries_out_by_itself() -> None:
    for value in (0x14000000, 0x94000000, 0x54000000, 0xB4000000, 0x36000000, 0x90000000):
        assert word(value).emulated_from == ALWAYS, hex(value)
    assert word(0xD503201F).emulated_from == (6, 13)  # nop
    # A literal load, mrs and an exclusive access are refused.
    for value in (0x58000000, 0xD53BD040, 0xC85F7C01):
        assert not word(value).can_probe, hex(value)
    assert word(0xD503233F).changes == 1 << LINK  # paciasp
    assert word(0xA9BF7BFD).saves_return and word(0xA9BF7BFD).changes == 1 << STACK
    assert word(0xAA0103E0).copies == (0, 1)  # mov x0, x1
