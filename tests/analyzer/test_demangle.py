"""Names of C++ classes as their authors wrote them; what is not understood stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakcase_analyzer.demangle import MOST_CHARACTERS, class_name

NAMES = {
    "7Session": "Session",
    "N4acme7SessionE": "acme::Session",
    "N4acme6detail7SessionE": "acme::detail::Session",
    "N12_GLOBAL__N_16HiddenE": "(anonymous namespace)::Hidden",
    "St9exception": "std::exception",
    "NSt6thread6_StateE": "std::thread::_State",
    "N4acme4NodeIiEE": "acme::Node<int>",
    "N4acme4NodeINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEEE": "acme::Node<std::string>",
    "N4acme4NodeISt6vectorIiSaIiEEEE": "acme::Node<std::vector<int, std::allocator<int>>>",
    "N4acme4PairINS_1AENS_1BENS_3BoxIS1_EEEE": "acme::Pair<acme::A, acme::B, acme::Box<acme::A>>",
    "N4acme5ArrayIcLj16ELb1ELin3EEE": "acme::Array<char, 16u, true, -3>",
    "N4acme4KindILNS_5ColorE2EEE": "acme::Kind<(acme::Color)2>",
    "N4acme4ListIJicPKcEEE": "acme::List<int, char, char const*>",
    "N4acme8CallbackIFvRKSsPNS_1AEEEE": "acme::Callback<void (std::string const&, acme::A*)>",
    "N4acme6FilterIPFbvEEE": "acme::Filter<bool (*)()>",
    "N4acme5TableIA4_iEE": "acme::Table<int [4]>",
    "Z4mainE5Local": "main::Local",
    "ZN4acme3runEiRKNS_1AEE5Local": "acme::run(int, acme::A const&)::Local",
    "ZNK4acme1A3runEvE5Local": "acme::A::run() const::Local",
    "St15_Sp_counted_ptrIPN4acme7SessionELN9__gnu_cxx12_Lock_policyE2EE":
        "std::_Sp_counted_ptr<acme::Session*, (__gnu_cxx::_Lock_policy)2>",
}  # fmt: skip
STRANGE = (
    "", "N", "NE", "N4acmeE5", "9Session", "N4acme7SessionEx", "S_", "N4acmeS9_E", "Z", "T_", "Sa",
    "not mangled at all", "N4acme4NodeIXsr3fooE3barEE", "0", "99999999999999999999999999Session",
)  # fmt: skip


@pytest.mark.parametrize("mangled", NAMES)
def test_a_class_is_called_as_in_its_source(mangled: str) -> None:
    assert class_name(mangled) == NAMES[mangled]


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_understood_stays_as_it_is(name: str) -> None:
    assert class_name(name) == name


@given(st.text(alphabet="NESIZLKPRFAJSt0123456789_abcivlmTUX", max_size=512))
def test_no_text_makes_it_fail(text: str) -> None:
    assert isinstance(class_name(text), str)


def test_a_name_that_doubles_with_every_letter_stays_as_it_is() -> None:
    # Each c<...> refers twice to the one before it.
    steps = "".join(f"1cIS{n}_S{n}_E" for n in "2468ACEGIKMOQSUWY")
    bomb = f"N1a1bI1cIiiE{steps}EE"
    deep = "N1aI" + "P" * 500 + "iEE"
    assert class_name(bomb) == bomb and class_name(deep) == deep
    assert len(class_name("N1aI" + "S_" * 200 + "EE")) <= MOST_CHARACTERS
