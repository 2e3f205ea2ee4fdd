"""Tables of the guide and lines of the template, generated from the tables of methods, data sets and networks.

`python -m orchestrator.spec.guide_tables` writes them into the guide; a test checks that they are up to date.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from orchestrator.spec.search_schema import METRICS, STRATEGIES
from trainables.config.methods import METHODS
from trainables.config.options import OptionRule
from trainables.data.table import DATASETS
from trainables.models.table import NETWORKS

COLUMN, WIDTH = 36, 120  # of comments in the template


def guide_tables() -> dict[str, dict[str, str]]:
    """Topic -> name of the marker -> the Markdown between <!-- NAME --> and <!-- /NAME -->."""
    return {
        "methods": {"methods": _methods(), "options": _options(), "networks": _networks()},
        "data": {"datasets": _datasets()},
        "search": {"strategies": _strategies(), "objectives": _objectives()},
    }


def with_tables(text: str, tables: dict[str, str]) -> str:
    """A page of the guide with these tables between their markers."""
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = head + begin + table + end + tail
    return text


def template_lines() -> dict[str, str]:
    """Placeholder of template.yaml -> its text."""
    return {
        "{datasets}": _wrapped(f"one of {', '.join(DATASETS)}", " " * COLUMN),
        "{networks}": _wrapped(f"one of {', '.join(NETWORKS)}", " " * COLUMN),
        "{strategies}": f"one of {', '.join(STRATEGIES)}",
        "{methods}": _wrapped(f"one of them or a list: {', '.join(METHODS)}", " " * COLUMN),
        "{options}": "\n#\n".join(_template_block(name) for name in _with_options()),
    }


def _with_options() -> list[str]:
    return [name for name, method in METHODS.items() if method.options.rules()]


def _template_block(name: str) -> str:
    method = METHODS[name]
    lines = [f"# {name}:".ljust(COLUMN) + f"# {_wrapped(method.description)}"]
    for option, rule in method.options.rules().items():
        key = f"#   {option}: {_yaml(method.options.default(option))}"
        lines.append(f"{key.ljust(COLUMN)}# {_wrapped(rule.description.rstrip('.'))}")
    return "\n".join(lines)


def _wrapped(comment: str, margin: str = "#".ljust(COLUMN)) -> str:
    return f"\n{margin}# ".join(textwrap.wrap(comment, WIDTH - COLUMN))


def _methods() -> str:
    return _table(
        ("method", "what it keeps", "source"),
        ((f"`{method.name}`", method.keeps, method.source) for method in METHODS.values()),
    )


def _options() -> str:
    rows = []
    for name in _with_options():
        options = METHODS[name].options
        for option, rule in options.rules().items():
            default = options.default(option)
            shown = "" if default is None else f"`{_yaml(default)}`"
            rows.append((f"`{name}.{option}`", shown, _meaning(rule)))
    return _table(("key", "default", "meaning"), rows)


def _meaning(rule: OptionRule) -> str:
    return rule.description.replace("|", "\\|").rstrip(".")


def _networks() -> str:
    rows = ((f"`{network.name}`", network.description) for network in NETWORKS.values())
    return _table(("name", "what it is"), rows)


def _datasets() -> str:
    return _table(
        ("name", "images", "notes"),
        ((f"`{dataset.name}`", dataset.images, dataset.description) for dataset in DATASETS.values()),
    )


def _strategies() -> str:
    return _table(("strategy", "what it tries"), ((f"`{name}`", meaning) for name, meaning in STRATEGIES.items()))


def _objectives() -> str:
    rows = [(f"`{way}`", ", ".join(f"`{name}`" for name, best in METRICS.items() if best == way)) for way in ("max", "min")]
    return _table(("better", "metric of an objective"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    rule = "|---" * len(head) + "|\n"
    first, *others = ("| " + " | ".join(cells) + " |\n" for cells in (head, *rows))
    return (first + rule + "".join(others)).replace("|  |", "| |")


def _yaml(value: Any) -> str:
    if isinstance(value, float) and value and abs(value) < 1e-3:
        return f"{value:g}".replace("e-0", "e-")
    return value if isinstance(value, str) else json.dumps(value)


def main() -> int:
    folder = Path(str(resources.files("orchestrator").joinpath("guide")))
    for topic, tables in guide_tables().items():
        page = folder / f"{topic}.md"
        page.write_text(with_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
