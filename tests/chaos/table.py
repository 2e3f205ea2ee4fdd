"""What is printed: a line for each round, and at the end a table of the faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.chaos.round import Outcome


def line_of(outcome: Outcome) -> str:
    """One line: number, setting, faults with their moments, exit codes, seconds, and whether all held."""
    plan = outcome.plan
    codes = " ".join("hung" if code is None else str(code) for code in outcome.codes)
    verdict = "FAILED" if outcome.problems else "ok"
    return (
        f"round {plan.number:3d} seed {plan.seed}: {'; '.join(outcome.texts)} | {plan.setting} | "
        f"{len(outcome.codes)} attempts ({codes}), {outcome.seconds:.1f} s, {verdict}"
    )


def table_of(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """A line for each kind of fault: how often it hit and came too late, in how many rounds, and how many of these failed."""
    outcomes = list(outcomes)
    kinds = sorted({name for outcome in outcomes for name, _ in outcome.injections})
    width = max(map(len, ("in all", *kinds)))
    yield f"{'fault':{width}}   hit  late  rounds  failed"
    rows = [(kind, [outcome for outcome in outcomes if kind in dict(outcome.injections)]) for kind in kinds]
    for kind, met in [*rows, ("in all", outcomes)]:
        hits = [hit for outcome in met for name, hit in outcome.injections if name == kind or met is outcomes]
        failed = sum(bool(outcome.problems) for outcome in met)
        yield f"{kind:{width}}  {sum(hits):4d}  {len(hits) - sum(hits):4d}  {len(met):6d}  {failed:6d}"
