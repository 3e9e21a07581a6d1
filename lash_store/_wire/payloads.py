"""JSON Schema: which payloads an event type or a trigger takes.

``validating`` checks, by the library ``jsonschema``.
"""

from typing import Any

import msgspec

from lash_store._kernel.checks import check_kind, shown
from lash_store._kernel.codecs import encode_json, free_json
from lash_store.errors import InvalidRecordError


class PayloadSchema(msgspec.Struct, frozen=True):
    """A JSON Schema, draft 2020-12 unless it names another by ``$schema``; `{}` takes anything."""

    schema: Any = {}


def written_schema(field: str, payload_schema: PayloadSchema) -> dict[str, Any]:
    """Check a payload schema and return its written form; InvalidRecordError if it is no schema."""
    check_kind(field, payload_schema, PayloadSchema)
    written = free_json(f"{field}.schema", payload_schema.schema)
    try:
        _validating().compile_schema(encode_json(written))
    except ValueError as error:
        raise InvalidRecordError(field, shown(payload_schema.schema), str(error)) from error
    return {"schema": written}


class Problem(msgspec.Struct, frozen=True):
    """Why a payload does not fit; or, `of_schema`, why nothing can be said: the schema is none."""

    text: str
    of_schema: bool = False


def problem_of(schema_json: str, payload: Any) -> Problem | None:
    """Say where and why `payload`, as it was read from JSON, does not fit a schema; None if it does.

    It may take as long as schema and payload please, so never where others wait for it.
    """
    try:
        validator = _validating().compile_schema(schema_json)
    except ValueError as error:
        return Problem(str(error), of_schema=True)
    text = _validating().mismatch(validator, payload)
    return None if text is None else Problem(text)


def schema_text(schema: Any) -> str | None:
    """Return the JSON of a schema; None for one that takes anything, which needs no look."""
    return None if schema == {} or schema is True else encode_json(schema)


def _validating() -> Any:
    """Return what checks payloads; not before there is a schema that asks for it."""
    from lash_store._wire import validating  # noqa: PLC0415 # reason: an eighth of what importing the library takes

    return validating
