"""The numbers of a plan's networks; users' networks are built in a separate process, where they may fail, end it or hang."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchestrator.errors import UserError
from orchestrator.planning.plan import Plan
from orchestrator.process.child import ChildError, HungChildError, ask, serve
from orchestrator.process.patience import HINT, limit_s
from trainables.config.keys import canonical, from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.references import is_custom
from trainables.data.facts import DataFacts
from trainables.errors import ConfigError
from trainables.pruning.kept_weights import NetworkShape, known_network_shape, network_shape


def shape_of_network(plan: Plan, config: TrialConfig) -> NetworkShape:
    """The numbers of a trial's network, of a plan whose data are known.

    Raises:
        ConfigError: it cannot be built.
        UserError: it hangs while it is built.
    """
    facts, files = plan.data_facts, plan.custom_files
    assert facts is not None
    if not is_custom(config.model):
        return network_shape(config, facts, files)
    if known := known_network_shape(config, facts, files):
        return known
    request = {"config": canonical(config), "facts": facts.to_json(), "custom_files": asdict(files)}
    try:
        answer = ask(__name__, request, keep_errors=True, limit_s=limit_s(plan.spec.stage_timeout))
    except HungChildError as error:
        raise UserError(f"model: {config.model} must return a network, got {error}", HINT, code="network-unusable") from error
    except ChildError as error:
        raise ConfigError(f"model: {config.model} must return a network, got {error}") from error
    if "error" in answer:
        raise ConfigError(answer["error"], answer["hint"])
    return NetworkShape.from_json(answer)


def main() -> None:
    """The child process: responds with the numbers, or with an error."""
    serve(_respond)


def _respond(request: dict[str, Any]) -> dict[str, Any]:
    config, facts = from_canonical(TrialConfig, request["config"]), DataFacts.from_json(request["facts"])
    try:
        return asdict(network_shape(config, facts, CustomFiles(**request["custom_files"])))
    except ConfigError as error:
        return {"error": error.message, "hint": error.hint}
