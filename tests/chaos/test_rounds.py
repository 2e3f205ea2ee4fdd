"""Real rounds, as the command runs them. The long form is ten of them."""

from __future__ import annotations

import re

import pytest

from tests.chaos.__main__ import main


@pytest.mark.long
def test_ten_rounds_hold(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "10", "--seed", "0"]) == 0
    output = capfd.readouterr().out
    assert len(re.findall(r"^round +\d+ .*, ok$", output, re.MULTILINE)) == 10
    assert "10 of 10 rounds held" in output
