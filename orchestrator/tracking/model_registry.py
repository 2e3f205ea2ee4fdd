"""The recommended models of a sweep in MLflow's model registry.

A sweep has one registered model for each network, with one version for each logged model that was ever recommended. An alias of
each group, such as best-s95, is at the version that is recommended now. A tag says whose the registered model is: that of
somebody else, with the same name, is not touched. Syncing again changes nothing, also after a crash between two calls:
a version is created with its tags, by which the next sync knows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SetupError
from orchestrator.tracking.runs import SweepRuns, every_hit
from orchestrator.tracking.sweep_summary import RecommendedTrial
from trainables.runtime.json_text import parse_json
from trainables.wording import as_markdown

NOT_IN_NAMES = re.compile(r"[^\w\-.]", re.ASCII)
OF_GROUPS = "best-"  # what every alias of a group begins with
MODEL_ID = "drive.model_id"  # tag of a version, and of a trial's run
SHOWN_AS_VERSIONS = "mlflow.modelVersions"  # tag of a logged model: where MLflow's pages look for its versions
LONGEST_DESCRIPTION = 5000  # of MLflow's column
FORMER = "It was recommended earlier; the aliases of this model show what is recommended now."


def registered_name(sweep: str, network: str) -> str:
    """The name of a sweep's registered model, such as digits-convnet."""
    return NOT_IN_NAMES.sub("_", f"{sweep}-{network}")


def owner_tags(sweep: str, experiment: str) -> dict[str, str]:
    """The tags that say whose a registered model is; sweeps of one name in two experiments are two."""
    return {"drive.sweep": sweep, "drive.experiment": experiment}


def is_of(registered: Any, owner: Mapping[str, str]) -> bool:
    """Whether a registered model is the one of this sweep."""
    return owner.items() <= dict(registered.tags).items()


@dataclass(kw_only=True)
class _Version:
    number: str
    description: str


class ModelRegistry:
    """The registered models of one sweep."""

    def __init__(self, client: Any, sweep: str, experiment: str) -> None:
        self.client = client
        self.sweep = sweep
        self.owner = owner_tags(sweep, experiment)

    def register(self, recommended: Sequence[RecommendedTrial], runs: SweepRuns) -> None:
        """Registers the models of the recommended trials that MLflow has, and moves the aliases to them.

        Raises:
            SetupError: a registered model of that name is somebody else's; other networks' are registered all the same.
        """
        problems = []
        for network in dict.fromkeys(one.network for one in recommended):
            try:
                self._register([one for one in recommended if one.network == network], network, runs)
            except SetupError as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def _register(self, recommended: Sequence[RecommendedTrial], network: str, runs: SweepRuns) -> None:
        models = {one.trial_key: _model_id(runs, one) for one in recommended}
        if not any(models.values()):
            return
        name = registered_name(self.sweep, network)
        aliases = self._ensure(name, _description(self.sweep, name, recommended))
        versions = self._versions(name)
        sentences: dict[str, list[str]] = {}
        for one in recommended:
            if model_id := models[one.trial_key]:
                sentences.setdefault(model_id, []).append(one.sentence)
        for model_id, lines in sentences.items():
            self._ensure_version(name, model_id, _joined(lines), versions)
        for model_id, version in versions.items():
            self._describe(name, version, _joined(sentences.get(model_id, [FORMER])))
        for one in recommended:
            if model_id := models[one.trial_key]:
                number = versions[model_id].number
                if aliases.get(one.alias) != number:
                    self.client.set_registered_model_alias(name, one.alias, number)
        for alias in aliases.keys() - {one.alias for one in recommended}:
            if alias.startswith(OF_GROUPS):
                self.client.delete_registered_model_alias(name, alias)

    def _ensure(self, name: str, description: str) -> dict[str, str]:
        """Alias -> version of the registered model, which is created if there is none."""
        from mlflow.exceptions import MlflowException

        try:
            registered = self.client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            registered = self.client.create_registered_model(name, tags=self.owner, description=description)
        if not is_of(registered, self.owner):
            raise SetupError(
                f"registered model {name!r} must be that of sweep {self.sweep!r} in experiment "
                f"{self.owner['drive.experiment']!r}, got one without its tags",
                "rename that model in MLflow, or give the sweep another name",
                code="registered-model-foreign",
            )
        if registered.description != description:
            self.client.update_registered_model(name, description)
        return {alias: str(version) for alias, version in dict(registered.aliases).items()}

    def _versions(self, name: str) -> dict[str, _Version]:
        """Id of a logged model -> its version; the oldest one if somebody made two."""
        hits = sorted(every_hit(self.client.search_model_versions, f"name='{name}'"), key=lambda hit: -int(hit.version))
        return {
            hit.tags[MODEL_ID]: _Version(number=str(hit.version), description=hit.description or "")
            for hit in hits
            if MODEL_ID in hit.tags
        }

    def _ensure_version(self, name: str, model_id: str, description: str, versions: dict[str, _Version]) -> None:
        """Adds the version of a logged model to `versions` if it has none, and makes MLflow's pages link it."""
        model = self.client.get_logged_model(model_id)
        if model_id not in versions:
            created = self.client.create_model_version(
                name,
                source=model.artifact_location,
                run_id=model.source_run_id,
                model_id=model_id,
                description=description,
                tags={MODEL_ID: model_id, "drive.trial_key": model.tags.get("drive.trial_key", "")},
            )
            versions[model_id] = _Version(number=str(created.version), description=description)
            model = self.client.get_logged_model(model_id)  # a server adds the link by itself
        number = versions[model_id].number
        links = parse_json(model.tags.get(SHOWN_AS_VERSIONS, "[]"))
        if not any(link["name"] == name and str(link["version"]) == number for link in links):
            links.append({"name": name, "version": int(number)})  # as a server does
            self.client.set_logged_model_tags(model_id, {SHOWN_AS_VERSIONS: json.dumps(links)})

    def _describe(self, name: str, version: _Version, description: str) -> None:
        if version.description != description:
            self.client.update_model_version(name, version.number, description)
            version.description = description


def _model_id(runs: SweepRuns, one: RecommendedTrial) -> str:
    """Id of the logged model of a trial; empty if MLflow does not have it, or not yet."""
    run = runs.by_key.get(("trial", one.trial_key))
    return run.tags.get(MODEL_ID, "") if run else ""


def _description(sweep: str, name: str, recommended: Sequence[RecommendedTrial]) -> str:
    head = [f"The recommended models of sweep {sweep}, each under its alias.", ""]
    load = [f'    mlflow.pyfunc.load_model("models:/{name}@{recommended[0].alias}")', ""]
    return _joined([*head, *load, *(f"- `{one.alias}`: {as_markdown(one.sentence)}" for one in recommended)])


def _joined(lines: Iterable[str]) -> str:
    """The lines, as many as MLflow takes."""
    kept: list[str] = []
    for line in lines:
        if sum(map(len, kept)) + len(kept) + len(line) > LONGEST_DESCRIPTION:
            break
        kept.append(line)
    return "\n".join(kept)
