"""The figures of a sweep. To add one, write a function that draws it, in a file of this folder, and its entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.figures.accuracy_over_cost import accuracy_over_cost
from orchestrator.figures.accuracy_over_sparsity import accuracy_over_sparsity
from orchestrator.figures.figure import Figure
from orchestrator.figures.heat_maps import maps_of_test, maps_of_validation
from orchestrator.figures.hours import hours
from orchestrator.figures.layer_densities import layer_densities
from orchestrator.figures.learning_curves import learning_curves
from orchestrator.figures.pruning_cost import pruning_cost
from orchestrator.figures.search_slices import search_slices
from orchestrator.reporting.sweep_results import SweepResults


@dataclass(frozen=True, kw_only=True)
class FigureKind:
    """Figures of one kind, which a page shows together.

    Attributes:
        caption: how to read them.
        draw: the figures of a sweep; none where there is nothing to show.
        is_folded: whether a page shows them only when one asks for them.
    """

    title: str
    caption: str
    draw: Callable[[SweepResults], list[Figure]]
    is_folded: bool = False


FIGURES = (
    FigureKind(
        title="Warm-up and iterations",
        caption="Mean validation accuracy in percent, ± its deviation over seeds. The frame marks the recommended setting.",
        draw=maps_of_validation,
    ),
    FigureKind(
        title="What the search tried",
        caption="A point is a configuration, at the mean over its seeds; those with one seed tell little.",
        draw=search_slices,
    ),
    FigureKind(
        title="Accuracy over sparsity",
        caption="Test accuracy of the recommended setting of each method and sparsity, ± one standard deviation over seeds. Of "
        "channels with a target, the sparsity is the share that it removes.",
        draw=accuracy_over_sparsity,
    ),
    FigureKind(
        title="Accuracy over cost",
        caption="A point is a setting; the recommended ones are filled. Multiply-adds are those of kept weights: most machines "
        "do not skip the others.",
        draw=accuracy_over_cost,
    ),
    FigureKind(
        title="Layers",
        caption="Kept share of the weights of each layer in the recommended models, mean over seeds.",
        draw=layer_densities,
    ),
    FigureKind(
        title="Learning curves",
        caption="Mean over seeds, of the recommended setting (★) and those next to it. Pruning comes right after the warm-up.",
        draw=learning_curves,
    ),
    FigureKind(
        title="Cost of pruning",
        caption="What comes before sparse training. The warm-up counts as if it were not shared; levels of IMP are pruning.",
        draw=pruning_cost,
    ),
    FigureKind(
        title="Where the time went",
        caption="Of the trials that this sweep has computed itself.",
        draw=hours,
    ),
    FigureKind(
        title="Warm-up and iterations, test accuracy",
        caption="Mean test accuracy in percent, which decides nothing. The frame marks the recommended setting.",
        draw=maps_of_test,
        is_folded=True,
    ),
)


def draw_figures(results: SweepResults) -> list[tuple[FigureKind, list[Figure]]]:
    """Each kind with its figures, in the order of FIGURES; without kinds that have none."""
    drawn = [(kind, kind.draw(results)) for kind in FIGURES]
    return [(kind, figures) for kind, figures in drawn if figures]
