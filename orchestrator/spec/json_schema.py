"""The JSON Schema of a sweep file, for editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from orchestrator.spec.schema import SweepSpec


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a sweep file, for editors: every key with its meaning, type, range and default."""
    schema = SweepSpec.model_json_schema(schema_generator=_SchemaWithoutTitles)
    schema["required"].remove("model")
    searched = {"required": ["search"], "properties": {"search": {"required": ["model"]}}}
    schema["anyOf"] = [{"required": ["model"]}, searched]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "drive-sweep sweep file"}


class _SchemaWithoutTitles(GenerateJsonSchema):
    """Leaves out the title of each key, which would only repeat the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
