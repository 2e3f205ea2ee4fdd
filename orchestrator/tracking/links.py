"""Short links into the MLflow UI, however many trials a sweep has."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote, urlencode

from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.state.sweep_state import SweepState
from orchestrator.tracking.client import as_setup_error, import_mlflow
from orchestrator.tracking.model_registry import is_of, owner_tags, registered_name
from orchestrator.tracking.run_contents import uploaded_artifacts
from orchestrator.tracking.shared_views import TAG, sparsity_view_key, sweeps_view_key, trials_view_key
from trainables.config.lookup import is_dense

REPORT = "report.html"
VIEW = {"workflowType": "machine_learning"}  # of training; MLflow's default is another


def run_url(base: str, experiment_id: str, run_id: str, artifact: str = "") -> str:
    """One run's page, or one of its artifacts."""
    place = f"{run_id}/artifacts/{quote(artifact)}" if artifact else run_id
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{place}?{urlencode(VIEW)}"


def view_url(base: str, experiment_id: str, key: str, *, charts: bool = False) -> str:
    """A shared view of the page of runs (shared_views.py)."""
    query = {"viewStateShareKey": key} | ({"compareRunsMode": "CHART"} if charts else {}) | VIEW
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?{urlencode(query)}"


def model_url(base: str, name: str) -> str:
    """A registered model's page."""
    return f"{base.rstrip('/')}/#/models/{quote(name, safe='')}?{urlencode(VIEW)}"


def links(base: str, state: SweepState) -> dict[str, str]:
    """What is shown -> its link: the sweep's run and report, its trials, those of each sparsity, and its registered models.

    Args:
        base: address of the server, which is asked what there is.

    Raises:
        UserError: MLflow lacks the views of the trials; versions before they existed left none.
        SetupError: the server cannot be used.
    """
    import_mlflow(base)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    sweep, experiment_id, parent = state.sweep, state.experiment_id or "", state.parent_run_id or ""
    client = MlflowClient(tracking_uri=base)
    with as_setup_error(base):
        experiment = client.get_experiment(experiment_id)
        artifacts = uploaded_artifacts(client.get_run(parent).data.tags)
    tags = experiment.tags
    if f"{TAG}{trials_view_key(sweep)}" not in tags:
        raise UserError(
            f"MLflow lacks the views of sweep {sweep!r} that links open",
            f"`{command('sync', sweep)}` adds them",
            code="views-not-found",
        )
    shown = {"the sweep's run": run_url(base, experiment_id, parent)}
    if REPORT in artifacts:
        shown["its report"] = run_url(base, experiment_id, parent, REPORT)
    shown["trials, best first"] = view_url(base, experiment_id, trials_view_key(sweep))
    trials = [trial.config for trial in state.trials.values() if not is_dense(trial.config["method"])]
    for sparsity in sorted({config["sparsity"] for config in trials}):
        key = sparsity_view_key(sweep, sparsity)
        if f"{TAG}{key}" in tags:
            shown[f"compare at {sparsity!r}"] = view_url(base, experiment_id, key, charts=True)
    if f"{TAG}{sweeps_view_key(sweep)}" in tags:
        shown["all sweeps"] = view_url(base, experiment_id, sweeps_view_key(sweep))
    for network in sorted({config["model"] for config in trials}):
        name = registered_name(sweep, network)
        with suppress(MlflowException):  # there is none
            if is_of(client.get_registered_model(name), owner_tags(sweep, experiment.name)):
                shown[f"model {name}"] = model_url(base, name)
    return shown
