"""Moves the registered models of a sweep to its new name; versions and aliases stay."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.tracking.model_registry import MODEL_ID, SHOWN_AS_VERSIONS, owner_tags, registered_name
from orchestrator.tracking.runs import every_hit
from trainables.runtime.json_text import parse_json


def move_registered_models(client: Any, former: str, sweep: str, experiment: str) -> None:
    """Renames what model_registry.py has registered for the sweep; a model whose new name is taken stays as it is."""
    owned = " AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in owner_tags(former, experiment).items())
    before, after = registered_name(former, ""), registered_name(sweep, "")
    for name in [model.name for model in every_hit(client.search_registered_models, owned)]:
        new = after + name.removeprefix(before) if name.startswith(before) else name
        if new != name:
            if any(every_hit(client.search_registered_models, f"name = '{new}'")):
                continue
            client.rename_registered_model(name, new)
        for version in every_hit(client.search_model_versions, f"name = '{new}'"):
            _move_link(client, version, before, after)
        client.set_registered_model_tag(new, "drive.sweep", sweep)  # last: until then the next try finds it


def _move_link(client: Any, version: Any, before: str, after: str) -> None:
    """Makes the page of the version's logged model link the registered model under its new name."""
    if (model_id := version.tags.get(MODEL_ID)) is None:
        return
    links = parse_json(client.get_logged_model(model_id).tags.get(SHOWN_AS_VERSIONS, "[]"))
    moved = [
        link | {"name": version.name} if version.name == after + link["name"].removeprefix(before) else link for link in links
    ]
    if moved != links:
        client.set_logged_model_tags(model_id, {SHOWN_AS_VERSIONS: json.dumps(moved)})
