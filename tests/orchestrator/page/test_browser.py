"""The page in a browser: figures are drawn, tables sort and filter, nothing is asked of a network, anyone can read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from orchestrator.page.page import html_page
from orchestrator.reporting.sweep_results import SweepResults
from tests.support.browser import OpenedPage, needs_chromium, open_page, running_chromium

pytestmark = [needs_chromium, pytest.mark.process]


@pytest.fixture(scope="module")
def file(two_methods: SweepResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_page(two_methods))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser: Browser, file: Path) -> OpenedPage:
    return open_page(browser, file.as_uri(), viewport={"width": 1200, "height": 900}, color_scheme="light")


@pytest.fixture(scope="module")
def phone(browser: Browser, file: Path) -> OpenedPage:
    return open_page(browser, file.as_uri(), viewport={"width": 400, "height": 800}, color_scheme="dark")


def column(opened: OpenedPage, number: int) -> list[str]:
    """The texts of a column of the table of trials, in the rows that show."""
    return opened.page.locator(f"#trials tbody tr:not([hidden]) td:nth-child({number})").all_inner_texts()


def test_figures_are_drawn_without_an_error_or_a_request(opened: OpenedPage, file: Path) -> None:
    page = opened.page
    shown = page.locator("figure:visible")
    assert shown.count() > 8
    assert shown.count() == page.locator("figure:visible svg.marks").count()
    assert page.locator("figure:visible svg.marks path, figure:visible svg.marks text").count() > 100
    page.locator("details.kind > summary").click()  # the folded ones are drawn when they show
    page.wait_for_function("document.querySelectorAll('details.kind svg.marks').length == 4")
    assert opened.requests == [file.as_uri()]
    assert opened.errors == []


def test_one_of_many_figures_is_chosen(opened: OpenedPage) -> None:
    before = opened.page.locator("figure:visible svg.marks").count()
    select = opened.page.locator("select[data-kind]")
    assert select.count() == 0  # no kind has more than four here, so all are shown
    assert before == opened.page.locator("figure:visible").count()


def test_tables_sort_both_ways(opened: OpenedPage) -> None:
    head = opened.page.locator("#trials th", has_text="test accuracy")
    for direction, reverse in (("ascending", False), ("descending", True)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == direction
        texts = column(opened, 10)
        values = [float(text) for text in texts if text]
        assert values == sorted(values, reverse=reverse)
        assert texts[len(values) :] == [""] * 2  # what is not known stands last


def test_filter_keeps_rows_with_every_word(opened: OpenedPage) -> None:
    field = opened.page.get_by_label("filter").last
    field.fill("s0.95 imp")
    names = column(opened, 1)
    assert len(names) == 6
    assert all("s0.95" in name and "imp" in name for name in names)
    assert opened.page.locator("#trials-count").inner_text() == "6 of 39"
    field.fill("")
    assert len(column(opened, 1)) == 39


def test_interval_shows_on_hover(opened: OpenedPage) -> None:
    page = opened.page
    page.locator('figure[data-name="heatmap-validation-drive-s0.95"] svg .mark-text.role-mark text').last.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    text = page.locator("#vg-tooltip-element").inner_text()
    assert re.search(r"95 % interval of the mean:?\s*\d\d\.\d\d % to \d\d\.\d\d %", text)


def test_page_can_be_printed(opened: OpenedPage, tmp_path: Path) -> None:
    content = opened.page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 12


def test_phone_in_the_dark_shows_all_of_it(phone: OpenedPage) -> None:
    page = phone.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 27, 34)"
    label = page.locator("figure:visible svg.marks text").first
    assert label.evaluate("node => getComputedStyle(node).fill") != "rgb(0, 0, 0)"
    widths = page.locator("figure:visible svg.marks").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
    assert 200 < min(widths) <= max(widths) <= 400
    assert phone.errors == []


@pytest.mark.parametrize("which", ["opened", "phone"])
def test_axe_finds_nothing_serious(which: str, request: pytest.FixtureRequest) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(request.getfixturevalue(which).page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in serious] == []
