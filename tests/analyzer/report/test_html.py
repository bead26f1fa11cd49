"""The page: all that Markdown says, pictures, and nothing that a hostile case could put into it."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.cli import main
from leakcase_analyzer.report.html import html_text
from leakcase_analyzer.report.markdown import markdown_text
from leakcase_analyzer.report.view import MOST_STACKS
from tests.analyzer.cases import Capture, as_file, heap_leak
from tests.analyzer.hostile import HOSTILE_NAMES, with_hostile_names
from tests.analyzer.trace_cases import Source, traced_leak

#: All that our own template and pictures make.
OWN_TAGS = set(
    """html head meta title style body main section h1 h2 h3 p dl dt dd div table caption thead
    tbody tr th td ul ol li pre code span details summary svg g rect text line polyline polygon
    circle""".split()
)
OWN_ATTRIBUTES = set(
    """lang charset http-equiv content name class xmlns width height viewbox font-family role
    aria-label rx ry x y x1 y1 x2 y2 cx cy r fill fill-opacity stroke stroke-width stroke-linejoin
    points font-size font-weight text-anchor open""".split()
)
CACHE = Source(("cache_insert", "handle", "main"), life=20.0, each_window=60)


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: dict[str, set[str]] = {}
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.text))


def analysis_of(case: Capture, folder: Path) -> Analysis:
    return analyze(as_file(case, folder))


def plain(markdown: str) -> list[str]:
    """The sentences of a report in Markdown, without its marks."""
    lines = [line[2:] for line in markdown.splitlines() if line.startswith("- ")]
    return [re.sub(r"`+ ?(.*?) ?`+", r"\1", line) for line in lines]


def test_the_page_says_all_that_markdown_says(tmp_path: Path) -> None:
    analysis = analysis_of(traced_leak(CACHE), tmp_path)
    words = Page(html_text(analysis)).words
    sentences = plain(markdown_text(analysis))
    assert len(sentences) > 12
    for sentence in sentences:
        assert re.sub(r"\s+", " ", sentence) in words
    assert "Memory over time" in words


def test_the_page_shows_memory_the_flame_graph_and_how_long_blocks_live(tmp_path: Path) -> None:
    page = Page(html_text(analysis_of(traced_leak(CACHE), tmp_path)))
    assert page.attributes["aria-label"] == {"memory over time", "blocks alive by age"}
    assert page.tags.count("polyline") == 1 + 2
    assert "traced for 0.3 s" in page.words
    assert "all that stayed: 141 KiB in 1,440 blocks, 100 %" in page.words


def test_a_case_without_tracing_makes_a_page_without_code(tmp_path: Path) -> None:
    page = Page(html_text(analysis_of(heap_leak(), tmp_path)))
    assert "Who allocates" not in page.words
    assert page.attributes["aria-label"] == {"memory over time"}


@pytest.mark.parametrize("case", [Capture(seconds=0), Capture(), Capture(seconds=3)])
def test_a_page_is_made_of_any_case(case: Capture, tmp_path: Path) -> None:
    assert "None" not in Page(html_text(analysis_of(case, tmp_path))).words


def test_the_policy_allows_no_more_than_the_pages_own_style(tmp_path: Path) -> None:
    text = html_text(analysis_of(traced_leak(), tmp_path))
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}';" in text.replace("&#39;", "'")
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert not re.search(r"url\(|@import|https?:", style[1])


def test_the_dark_scheme_has_a_colour_of_its_own_for_each_of_the_light_one(tmp_path: Path) -> None:
    text = html_text(analysis_of(heap_leak(), tmp_path))
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w+);", block))
        for block in re.findall(r":root {(.*?)}", text, re.DOTALL)
    )
    assert light and light.keys() == dark.keys()
    assert not set(light.items()) & set(dark.items())
    assert set(re.findall(r"var\(--(\w+)\)", text)) == light.keys()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_text_in_the_page_and_nothing_else(name: str, tmp_path: Path) -> None:
    page = Page(html_text(analysis_of(with_hostile_names([name]), tmp_path)))
    assert set(page.tags) <= OWN_TAGS
    assert set(page.attributes) <= OWN_ATTRIBUTES
    assert re.sub(r"\s+", " ", name.strip()[:40]) in page.words
    assert page.tags.count("h2") == 7 and 1 <= page.tags.count("details") <= 2 + MOST_STACKS


def test_the_command_writes_the_page_under_the_reports_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = traced_leak().write(tmp_path / "case.leakcase")
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(case), "--format", "html"]) == 0
    (written,) = tmp_path.glob("*.html")
    assert capsys.readouterr().out.strip() == written.name
    assert written.read_text("utf-8").startswith("<!doctype html>")
