"""The report of a run: gpu.json, and the table that is printed. A file of measurements can be read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gpu.rows import Row, State

SCHEMA = 1
WIDEST_NAME = 76  # characters of a name in the table


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one run of the command found.

    Attributes:
        date: of its start, UTC.
        machine: facts of machine.py; `state` of a GPU at the start, `state_after` at the end.
        rows: by section, in the order of the run.
    """

    date: str
    seconds: float
    brief: bool
    machine: Mapping[str, Any]
    packages: Sequence[str]
    rows: Mapping[str, Sequence[Row]]

    @property
    def has_failed(self) -> bool:
        return any(row.state is State.FAILED for rows in self.rows.values() for row in rows)

    def write(self, file: Path) -> None:
        record = {
            "schema": SCHEMA,
            "date": self.date,
            "seconds": round(self.seconds, 1),
            "brief": self.brief,
            "machine": self.machine,
            "packages": self.packages,
            "rows": [{"section": section, **row.to_json()} for section, rows in self.rows.items() for row in rows],
        }
        file.write_text(json.dumps(record, indent=1) + "\n")


def read_report(file: Path) -> Report:
    """The report in a file.

    Raises:
        ValueError: it is of another version.
    """
    record = json.loads(file.read_text())
    if record["schema"] != SCHEMA:
        raise ValueError(f"{file.name}: schema must be {SCHEMA}, got {record['schema']}")
    rows: dict[str, list[Row]] = {}
    for one in record["rows"]:
        rows.setdefault(one.pop("section"), []).append(Row.from_json(one))
    names = ("date", "seconds", "brief", "machine", "packages")
    return Report(rows=rows, **{name: record[name] for name in names})


def line_of(row: Row) -> str:
    """One line of the printed table: name, value, aim and whether it holds, note."""
    name = row.name if len(row.name) <= WIDEST_NAME else f"{row.name[: WIDEST_NAME - 3]}..."
    return f"  {name:{WIDEST_NAME}s} {value_of(row):>20s}  {verdict_of(row)}{f'  ({row.note})' if row.note else ''}"


def value_of(row: Row) -> str:
    if row.value is None:
        return str(row.state)
    if isinstance(row.value, str):
        return f"{row.value} {row.unit}".strip()
    return f"{row.value:,} {row.unit}".strip()


def verdict_of(row: Row) -> str:
    """The aim, and whether it holds."""
    if row.state is State.FAILED and row.ok is None:
        return "FAILED"
    if not row.aim:
        return ""
    if row.ok is None:
        return row.aim
    missed = "FAILED" if row.state is State.FAILED else "missed"
    return f"{row.aim}: {'holds' if row.ok else missed}"


def summary_of(rows: Iterable[Row]) -> str:
    """How many rows there are of each state, and which aims were missed."""
    every = list(rows)
    counts = {state: sum(row.state is state for row in every) for state in State}
    text = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    missed = [row.name for row in every if row.state is State.MEASURED and row.ok is False]
    return text + (f"; aims missed: {', '.join(missed)}" if missed else "")
