"""What redaction keeps, what it hides, and that relationships survive."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakcase_bundle.strings import Token
from leakcase_collector.redact import Redactor


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


@pytest.mark.parametrize(
    "raw",
    [
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/sbin/nginx",
        "/usr/lib/postgresql/15/bin/postgres",
        "/usr/lib/python3.11/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so",
    ],
)
def test_a_module_in_a_system_place_keeps_its_whole_path(redactor: Redactor, raw: str) -> None:
    assert redactor.path(raw, is_module=True) == raw


def test_a_module_in_a_home_keeps_its_basename_only(redactor: Redactor) -> None:
    token = redactor.path("/home/alice/payroll/lib/libmoney.so.2", is_module=True)
    assert token == "/home/<dir:1>/<dir:2>/<dir:3>/libmoney.so.2"


def test_a_system_word_below_a_private_folder_is_private_too(redactor: Redactor) -> None:
    # Otherwise /home/usr/lib/... would tell a user called "usr".
    assert redactor.path("/home/usr/lib/x.dat") == "/home/<dir:1>/<dir:2>/<file:1>"


def test_a_data_file_loses_its_name_even_in_a_system_place(redactor: Redactor) -> None:
    assert redactor.path("/dev/shm/payroll") == "/dev/shm/<file:1>"


def test_the_deleted_suffix_does_not_make_another_file(redactor: Redactor) -> None:
    assert redactor.path("/srv/x (deleted)") == redactor.path("/srv/x")


def test_kernel_names_and_public_devices_stay(redactor: Redactor) -> None:
    for raw in ("[heap]", "[vdso]", "/dev/null", "/"):
        assert redactor.path(raw) == raw


def test_a_path_of_slashes_alone_is_the_root() -> None:
    assert Redactor().path("//") == Redactor().path("/// (deleted)") == "/"


def test_the_same_value_has_the_same_pseudonym_wherever_it_stands(redactor: Redactor) -> None:
    first = redactor.path("/home/alice/a")
    second = redactor.path("/srv/alice/b")
    assert first.split("/")[2] == second.split("/")[2] == "<dir:1>"


def test_a_name_stays_only_where_a_module_says_it_anyway(redactor: Redactor) -> None:
    redactor.know_module("/usr/bin/python3.11")
    assert redactor.name("python3") == "python3"
    assert redactor.name("payroll-main") == "<name:1>"
    assert redactor.name("p") == "<name:2>"


def test_a_title_written_over_the_arguments_is_cut_at_the_program(redactor: Redactor) -> None:
    title = ["postgres: alice payroll 10.0.0.7(5432) idle"]
    assert redactor.arguments(title, "/usr/lib/postgresql/15/bin/postgres") == ["postgres"]


def test_arguments_keep_option_names_and_no_value(redactor: Redactor) -> None:
    argv = ["/usr/bin/mysqld", "--password=hunter2", "-phunter2", "hunter2", "--", "-9", "--héllo"]
    assert redactor.arguments(argv, "/usr/sbin/mysqld") == [
        "mysqld", "--password", "-p", "<value>", "<value>", "<value>", "<option>",
    ]  # fmt: skip


def test_an_argument_zero_that_is_not_the_program_is_a_pseudonym(redactor: Redactor) -> None:
    assert redactor.arguments(["secret-title"], "/usr/bin/python3.11") == ["<name:1>"]


@pytest.mark.parametrize(
    ("raw", "port", "expected"),
    [
        ("127.0.0.1", 6379, "<loopback:1>:6379"),
        ("::1", 80, "<loopback:1>:80"),
        ("10.1.2.3", 5432, "<private:1>:5432"),
        ("192.168.0.9", None, "<private:1>"),
        ("8.8.8.8", 53, "<public:1>:53"),
        ("0.0.0.0", 0, "<any:1>:0"),
        ("fe80::1", 1, "<link-local:1>:1"),
        ("::ffff:10.1.2.3", 9, "<private:1>:9"),
    ],
)
def test_an_address_keeps_its_reach_and_port(
    redactor: Redactor, raw: str, port: int, expected: str
) -> None:
    assert redactor.address(raw, port) == expected


def test_two_addresses_differ_and_one_is_recognised_again(redactor: Redactor) -> None:
    first, second = redactor.address("10.0.0.1", 1), redactor.address("10.0.0.2", 1)
    assert first != second
    assert redactor.address("::ffff:10.0.0.1", 1) == first


def test_symbols_are_dropped_on_request() -> None:
    assert Redactor(keep_symbols=False).symbol("leak_here") is None
    assert Redactor().symbol("leak_here") == "leak_here"


def test_the_private_map_tells_who_is_who_and_is_ascii() -> None:
    lines: list[bytes] = []
    redactor = Redactor(lines.append)
    redactor.user("älice")
    redactor.user("älice")
    redactor.path("/home/\udcff/x")
    decoded = [json.loads(line) for line in lines]
    assert decoded[0] == {"pseudonym": "<user:1>", "value": "älice"}
    assert len(lines) == 3
    assert all(line.isascii() and line.endswith(b"\n") for line in lines)


@given(st.text(max_size=300))
def test_whatever_comes_in_a_well_formed_token_comes_out(raw: str) -> None:
    redactor = Redactor()
    tokens: list[Token | None] = [
        redactor.path(raw),
        redactor.path("/" + raw),
        redactor.path("/" + raw, is_module=True),
        redactor.name(raw),
        redactor.user(raw),
        redactor.host(raw),
        redactor.address(raw, 1),
        *redactor.arguments([raw, raw], raw),
        redactor.version(raw),
        redactor.package(raw),
        redactor.build_id(raw),
        redactor.symbol(raw),
        redactor.label(raw),
    ]
    assert all(token.is_well_formed() for token in tokens if token is not None)


@given(
    st.lists(st.sampled_from(["usr", "lib", "home", "S3CR3T", "x86_64-linux-gnu"]), min_size=1),
    st.booleans(),
)
def test_a_private_component_never_survives_but_as_a_module_name(
    parts: list[str], is_module: bool
) -> None:
    token = Redactor().path("/" + "/".join(parts), is_module=is_module)
    directories, last = token.rsplit("/", 1)
    assert "S3CR3T" not in directories
    assert "S3CR3T" not in last or is_module
