"""The JSON Schema of what commands print and write, derived from the records that they use: docs/schema.json."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from typing import Any

from pydantic import TypeAdapter

from marc import records
from marc.options import helps_of

TITLE = "What marc prints and writes as JSON"


def schema() -> dict[str, Any]:
    """Schema of answers and of what was recalled; rows of evaluations and batches hold those of an answer and more."""
    kinds = records.AnswerRecord | records.RecallRecord | records.FailureRecord
    made: dict[str, Any] = TypeAdapter(kinds).json_schema()
    described = {name: _described(definition, name) for name, definition in made["$defs"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "anyOf": made["anyOf"],
        "$defs": described,
    }


def _described(definition: dict[str, Any], name: str) -> dict[str, Any]:
    """A definition with what the record's docstring says."""
    record = getattr(records, name)
    assert is_dataclass(record)
    helps = helps_of(record)
    properties = {
        field: {**{key: value for key, value in values.items() if key != "title"}, "description": helps[field]}
        for field, values in definition["properties"].items()
    }
    summary = (inspect.getdoc(record) or "").partition("\n\n")[0].replace("\n", " ")
    return {**definition, "description": summary, "properties": properties}
