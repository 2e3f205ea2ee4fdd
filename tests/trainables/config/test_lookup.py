"""Names of methods in reports."""

from __future__ import annotations

from trainables.config.lookup import method_label
from trainables.config.methods import METHODS


def test_reports_say_of_a_reconstruction_that_it_is_one() -> None:
    assert method_label("consensus") == "consensus (reconstruction)"
    assert method_label("module:mine.score") == "module:mine.score"
    for name, method in METHODS.items():
        assert (method_label(name) == name) is not method.is_reconstruction
        if method.is_reconstruction:
            assert "reconstruction" in method.description
            assert "not the paper's equations" in method.keeps
