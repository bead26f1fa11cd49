"""Names of functions as their authors wrote them; what is not understood stays as it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakcase_analyzer.demangle_functions import function_name

NAMES = {
    "process_job": "process_job",
    "process_job.constprop.0.isra.0": "process_job",
    "malloc@@GLIBC_2.2.5": "malloc",
    "_Z3runi": "run",
    "_ZN4acme3runERKSs": "acme::run",
    "_ZN4acme7SessionC2Ev": "acme::Session::Session",
    "_ZN4acme4NodeIiED0Ev": "acme::Node<int>::~Node",
    "_ZNK4acme4NodeIiEclEv": "acme::Node<int>::operator()",
    "_ZNSt6vectorIiSaIiEE9push_backERKi": "std::vector<int, std::allocator<int>>::push_back",
    "_ZN4acme5applyIiEEvT_": "acme::apply<int>",
    "_Znwm": "operator new",
    "_ZN4acme1AcvPKcEv": "acme::A::operator char const*",
    "_ZThn16_N4acme1A3runEv": "acme::A::run",
    "_ZZN4acme4loopEvENKUlvE_clEv": "acme::loop()::{lambda()#1}::operator()",
    "_ZN4deep4keep17h0123456789abcdefE": "deep::keep",
    "_ZN62_$LT$deep..S$LT$u32$GT$$u20$as$u20$deep..Tr$u2b$core..Send$GT$2go17h0123456789abcdefE":
        "<deep::S<u32> as deep::Tr+core::Send>::go",
    "_RNvCs4fqI2P2rA04_7mycrate4main": "mycrate::main",
    "_RNvXs_NtCsgEmfK2I1SDS_7mycrate4deepINtB4_1SmENtB4_2Tr2go":
        "<mycrate::deep::S<u32> as mycrate::deep::Tr>::go",
    "_RNCNvCs4fqI2P2rA04_7mycrate4main0B3_": "mycrate::main::{closure}",
    "_RINvNtCsjrHSEGnQ3l9_3std9panicking12catch_unwindlRDINtNtNtCsgEmfK2I1SDS_4core3ops8function"
    "2FnuEp6OutputlNtNtBU_6marker4SyncEL_EB4_":
        "std::panicking::catch_unwind<i32, "
        "&dyn core::ops::function::Fn<(), Output = i32> + core::marker::Sync>",
    "_RINvC1a4callFUKCjEuFG_RL0_hEbDNtB2_2TrEL_E":
        'a::call<unsafe extern "C" fn(usize), fn(&u8) -> bool, dyn a::Tr>',
}  # fmt: skip
STRANGE = (
    "", "_Z", "_ZN", "_ZNE", "_ZN4acme", "_ZN99999999999999999999999a", "_R", "_RB_", "_RNvB_1a",
    "_RIB_B_E", "_ZTV7Session", "_RNvC99999a", "_ZS_",
)  # fmt: skip


@pytest.mark.parametrize("symbol", NAMES)
def test_a_symbol_is_read_as_its_author_wrote_it(symbol: str) -> None:
    assert function_name(symbol) == NAMES[symbol]


@pytest.mark.parametrize("symbol", STRANGE)
def test_what_is_not_understood_stays_as_it_is(symbol: str) -> None:
    assert function_name(symbol) == symbol


@given(st.text(alphabet="_ZNKSIEJTCDRBLMXYFAPOstv0123456789abcclnw$.h", max_size=60))
def test_any_symbol_ends_in_a_name_of_bounded_length(tail: str) -> None:
    for start in ("_Z", "_ZN", "_R", "_RNv"):
        assert len(function_name(start + tail)) < 200_000


@pytest.mark.skipif(
    shutil.which("nm") is None or shutil.which("c++filt") is None, reason="there are no binutils"
)
def test_names_of_a_real_library_are_those_that_binutils_read() -> None:
    library = next(Path("/usr/lib").glob("*/libstdc++.so.6"), None)
    if library is None:
        pytest.skip("there is no libstdc++")
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, timeout=30
    ).stdout
    symbols = sorted(set(re.findall(r" [TW] (_ZN?K?St[\w]+)@", listed)))[:2000]
    asked = subprocess.run(
        ["c++filt"], input="\n".join(symbols), capture_output=True, text=True, timeout=30
    ).stdout.splitlines()
    full = "std::__cxx11::basic_string<char,std::char_traits<char>,std::allocator<char>>"
    wrong = [
        (symbol, written)
        for symbol, written in zip(symbols, asked, strict=True)
        if function_name(symbol).replace(" ", "").replace("std::string", full)
        not in written.replace(" ", "")
    ]
    assert len(symbols) > 300
    assert len(wrong) <= 0.03 * len(symbols), wrong[:5]
