"""Holds documents to the schemas of docs/admin-openapi.json: the part of JSON Schema that is used there.

Strict: an object may have no member that its schema does not name, so that a member that is not documented is
found. Threading: values. Errors: a list of sentences, empty when the document fits.
"""

from __future__ import annotations

import json
import pathlib
import re

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "admin-openapi.json"
UNDERSTOOD = {
    "$ref", "type", "properties", "required", "items", "enum", "additionalProperties", "minimum", "maximum",
    "minItems", "maxItems", "pattern", "anyOf", "default", "description",
}


class Document:
    """An OpenAPI document."""

    def __init__(self, content: dict) -> None:
        self.content = content

    @staticmethod
    def load() -> Document:
        """The one of the tree."""
        return Document(json.loads(PAGE.read_text(encoding="utf-8")))

    def operations(self) -> set[tuple[str, str]]:
        """Paths and methods, the latter in lower case."""
        return {(path, method) for path, item in self.content["paths"].items() for method in item}

    def misfits(self, path: str, method: str, status: int, content_type: str, body: bytes) -> list[str]:
        """Why this answer to this request is none that the document knows."""
        responses = self.content["paths"][path][method]["responses"]
        if str(status) not in responses:
            return [f"{method} {path}: the document does not know {status}"]
        content = responses[str(status)].get("content", {})
        kind = content_type.split(";")[0].strip()
        if kind not in content:
            return [f"{method} {path}: the document does not know {kind} for {status}"]
        if kind != "application/json":
            return []
        return self.misfits_of(json.loads(body), content[kind]["schema"], "$", path == "/v1/openapi.json")

    def misfits_of(self, value: object, schema: dict, where: str = "$", free: bool = False) -> list[str]:
        """Why a value does not fit a schema. `free`: it may have any members."""
        strange = set(schema) - UNDERSTOOD
        if strange:
            return [f"{where}: the schema says {sorted(strange)}, which is not understood here"]
        if "$ref" in schema:
            target = self.content
            for part in schema["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return self.misfits_of(value, target, where, free)
        if "anyOf" in schema:
            all_found = [self.misfits_of(value, each, where) for each in schema["anyOf"]]
            return [] if [] in all_found else sum(all_found, [])
        kinds = {
            "object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
            "number": (int, float), "null": type(None),
        }
        is_right = isinstance(value, kinds[schema["type"]])
        if isinstance(value, bool) and schema["type"] != "boolean":
            is_right = False
        if not is_right:
            return [f"{where} is no {schema['type']}: {value!r:.60}"]
        found = []
        if "enum" in schema and value not in schema["enum"]:
            found.append(f"{where} is none of {schema['enum']}: {value!r}")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            found.append(f"{where} does not look like {schema['pattern']}: {value!r}")
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        if isinstance(value, (int, float)) and not least <= value <= most:
            found.append(f"{where} is out of range: {value}")
        if isinstance(value, list):
            if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
                found.append(f"{where} has {len(value)} items")
            for index, each in enumerate(value):
                found += self.misfits_of(each, schema["items"], f"{where}[{index}]")
        if isinstance(value, dict) and not free:
            named = schema.get("properties", {})
            found += [f"{where} lacks {name}" for name in schema.get("required", []) if name not in value]
            for name, member in value.items():
                of_member = named.get(name, schema.get("additionalProperties"))
                if of_member is None:
                    found.append(f"{where} has {name}, which the schema does not name")
                else:
                    found += self.misfits_of(member, of_member, f"{where}.{name}")
        return found
