"""Texts of others, such as names of layers and errors of user code, on a terminal, in Markdown and in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re

import pytest
from rich.live import Live
from rich.table import Table

from orchestrator.execution.descriptions import description
from orchestrator.page.rows import to_csv
from orchestrator.prose import PlainConsole, print_prose
from orchestrator.state.sweep_state import SweepState
from trainables.wording import as_markdown, one_line, without_controls

TITLE = "\x1b]0;owned\x07"  # sets the title of a terminal's window
CLEAR = "\x1b[2J\x1b[1;1H"
HIDDEN = "\u202eexe.txt\u2066"
ATTACKS = [TITLE, CLEAR, HIDDEN, "\x9b31m", "\x08\x08\x08", "\x00", "\r", "\x7f", "\x1bP1$r\x1b\\", "\u2028", "\udc80"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_control_characters_are_escapes(attack: str) -> None:
    shown = without_controls(f"before {attack} behind\n\tnext")
    assert re.fullmatch(r"before [\x20-\x7e]+ behind\n\tnext", shown)
    assert without_controls(shown) == shown
    assert shown.isprintable() or "\n" in shown
    assert one_line(f"a {attack}").isprintable()


def test_colours_of_a_message_are_dropped() -> None:
    assert without_controls("\x1b[1;31mred\x1b[0m") == "red"


@pytest.mark.parametrize("attack", [*ATTACKS, "[/bold]", "[red]", "[link=http://x]y[/link]"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_consoles_show_texts_as_they_are(attack: str, is_terminal: bool) -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=is_terminal, width=200, color_system="standard" if is_terminal else None)
    table = Table(attack)
    table.add_row(f"cell {attack}")
    with Live(console=console):
        console.print(table)
        console.print(f"line {attack}", style="bold")
        print_prose(console, f"prose {attack}", style="dim")
    own = re.compile(r"\x1b\[[0-9;?]*[mlhAK]|\r")  # colours, and what Live moves
    left = own.sub("", file.getvalue()) if is_terminal else file.getvalue()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", left)
    if attack.startswith("["):
        assert left.count(attack) == 4
    else:
        assert attack not in left


def test_a_spreadsheet_sees_no_formula() -> None:
    texts = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "plain", "a=b"]
    content = to_csv([{"name": text, "value": -0.5} for text in texts]).decode()
    rows = list(csv.DictReader(io.StringIO(content)))
    assert [row["name"] for row in rows] == [f"'{text}" for text in texts[:5]] + texts[5:]
    assert {row["value"] for row in rows} == {"-0.5"}


def test_markdown_shows_texts_as_they_are() -> None:
    attack = "![x](http://evil/x.png) <script>a</script> `b` *c* [d](javascript:e) \\"
    shown = as_markdown(attack)
    assert re.sub(r"\\([\\`*<\[\]])", r"\1", shown) == attack
    assert not re.search(r"(?<!\\)[`*<\[\]]", shown)
    state = SweepState(sweep="s", trials={}, warmups={})
    assert f"- {shown}" in description(state, [], [attack], "", report=False)
