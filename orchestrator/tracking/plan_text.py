"""What a sweep is, and how to continue it, in Markdown for the description of its run."""

from __future__ import annotations

from orchestrator.command_line import command
from orchestrator.planning.plan import Plan
from orchestrator.spec.ranges import axis_text
from orchestrator.storage.base import Storage
from trainables.wording import as_markdown, counted, shortened

LONGEST_AXIS = 200  # characters of its values


def plan_text(plan: Plan, storage: Storage) -> str:
    """The plan in short, and the command that continues the sweep from any folder; equal whatever has finished."""
    spec = plan.spec
    axes = [f"- `{key}`: {as_markdown(shortened(axis_text(axis), LONGEST_AXIS))}" for key, axis in spec.search.items()]
    resume = command("resume", spec.name, storage=storage.root, anywhere=True)
    continued = f"To continue it, after an interruption or with failed trials:\n\n    {resume}"
    return "\n\n".join([f"**The plan:** {_size(plan)}", *(["\n".join(axes)] if axes else []), continued])


def _size(plan: Plan) -> str:
    """How many trials of what, and the epochs that all of them train together; those of a search are not known beforehand."""
    spec = plan.spec
    what = as_markdown(f"{spec.model} on {spec.dataset.name}")
    if spec.is_search:
        return f"a search ({spec.strategy.name}) for {what}."
    whole = plan.without_results({trial.key for trial in plan.trials})
    dense = sum(trial.config.is_dense for trial in plan.trials)
    parts = [f"{counted(len(plan.trials), 'trial')} of {what}" + (f", {dense} of them dense" if dense else "")]
    if warmups := whole.warmups() if spec.share_warmups else []:
        parts.append(counted(len(warmups), "shared warm-up"))
    epochs = whole.epochs()
    saved = epochs["unshared"] - epochs["shared"]
    at_most = "at most " if any(trial.config.warmup.auto for trial in plan.trials) else ""
    parts.append(f"{at_most}{epochs['shared']:,} epochs" + (f" ({saved:,} saved by sharing)" if saved else ""))
    return f"{', '.join(parts)}."
