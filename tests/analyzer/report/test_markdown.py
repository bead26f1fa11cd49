"""The ticket's Markdown: what it shows, in which order, and that a hostile case cannot shape it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token as Piece

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.report.markdown import code_span, markdown_text
from tests.analyzer.cases import Capture, as_file, heap_leak
from tests.analyzer.hostile import HOSTILE_NAMES, with_hostile_names

ORDER = [
    "Behaviour", "Environment", "Measured data", "Analysis", "Ruled out",
    "What could not be seen", "What to do",
]  # fmt: skip
#: All that our own template makes.
OWN_TAGS = set(
    """p h1 h2 h3 strong em table thead tbody tr th td ul ol li code pre details summary""".split()
)


def analysis_of(case: Capture, folder: Path) -> Analysis:
    return analyze(as_file(case, folder))


def parse(text: str) -> list[Piece]:
    """As GitHub would: HTML allowed, tables known, addresses made links."""
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    pieces: list[Piece] = []
    for block in reader.parse(text):
        pieces += [block, *(block.children or [])]
    return pieces


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: list[object] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += [attr for attr in attrs if attr[0] not in ("style", "class")]


def test_behaviour_comes_first_and_raw_data_is_folded_away(tmp_path: Path) -> None:
    text = markdown_text(analysis_of(heap_leak(), tmp_path))
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ORDER
    assert text.index("**Leak: heap memory grows") < text.index("## Behaviour")
    folded = text[text.index("<details>") :]
    assert "Memory over time" in folded and "the main heap" in folded
    assert folded.rstrip().endswith("</details>")


def test_every_table_row_has_as_many_cells_as_its_head(tmp_path: Path) -> None:
    pieces = parse(markdown_text(analysis_of(with_hostile_names(HOSTILE_NAMES), tmp_path)))
    widths: list[int] = []
    width = 0
    for piece in pieces:
        if piece.type in ("td_open", "th_open"):
            width += 1
        elif piece.type == "tr_close":
            widths.append(width)
            width = 0
        elif piece.type == "table_close":
            assert len(set(widths)) == 1, widths
            widths = []


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_shown_as_text_and_nothing_else(name: str, tmp_path: Path) -> None:
    text = markdown_text(analysis_of(with_hostile_names([name]), tmp_path))
    pieces = parse(text)
    assert not [p for p in pieces if p.type in ("link_open", "image", "html_inline")]
    html = {p.content.strip() for p in pieces if p.type == "html_block"}
    assert html == {"<details>\n<summary>Raw data</summary>", "</details>"}
    tags = Tags()
    tags.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    assert tags.seen <= OWN_TAGS
    assert tags.attributes == []
    headings = [
        pieces[i + 1].content
        for i, piece in enumerate(pieces)
        if piece.type == "heading_open" and piece.tag == "h2"
    ]
    assert headings == ORDER


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_code_span_gives_back_what_it_was_given(name: str) -> None:
    inline = parse(code_span(name).replace("\\|", "|"))
    spans = [piece.content for piece in inline if piece.type == "code_inline"]
    # A name is cut at 80 characters; CommonMark strips one space where both ends have one.
    assert len(spans) == 1
    assert spans[0].strip()[:40] == name.strip()[:40]
    assert not [piece for piece in inline if piece.type == "text" and piece.content]


def test_a_bar_in_a_name_does_not_end_a_cell(tmp_path: Path) -> None:
    text = markdown_text(analysis_of(with_hostile_names(["a|b"]), tmp_path))
    cells = [p.content for p in parse(text) if p.type == "code_inline"]
    assert "a|b" in cells


def test_a_stable_case_says_what_it_would_have_seen(tmp_path: Path) -> None:
    text = markdown_text(analysis_of(Capture(), tmp_path))
    assert "would have shown" in text
    assert "None" not in text


def test_an_apostrophe_stays_one_and_what_is_not_known_takes_no_row(tmp_path: Path) -> None:
    leaking = markdown_text(analysis_of(heap_leak(), tmp_path))
    assert "&#39;" not in leaking and "'s" in leaking
    assert "| grows when |" in leaking and "| watch longer |" not in leaking
    steady = markdown_text(analysis_of(Capture(), tmp_path))
    assert "| grows when |" not in steady and "| steady |" in steady
    assert "not known" not in steady.split("## Environment")[0]
