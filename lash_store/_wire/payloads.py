"""JSON Schema: which payloads an event type or a trigger takes.

The validator is the library ``jsonschema``; a schema is compiled once, and nothing is ever
fetched from elsewhere: a reference that leads out of the schema can't be resolved.
"""

from functools import lru_cache
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from lash_store._kernel.checks import check_kind, shown
from lash_store._kernel.codecs import encode_json, free_json, on_any_stack
from lash_store.errors import InvalidRecordError


class PayloadSchema(msgspec.Struct, frozen=True):
    """A JSON Schema, draft 2020-12 unless it names another by ``$schema``; `{}` takes anything."""

    schema: Any = {}


_LONGEST: Final = 300

_NO_REMOTE_SCHEMAS: Final[Registry[Any]] = Registry()


def written_schema(field: str, payload_schema: PayloadSchema) -> dict[str, Any]:
    """Check a payload schema and return its written form; InvalidRecordError if it is no schema."""
    check_kind(field, payload_schema, PayloadSchema)
    written = free_json(f"{field}.schema", payload_schema.schema)
    try:
        compile_schema(encode_json(written))
    except ValueError as error:
        raise InvalidRecordError(field, shown(payload_schema.schema), str(error)) from error
    return {"schema": written}


@lru_cache(maxsize=16_384)
def compile_schema(schema_json: str) -> Validator:
    """Return the validator of one schema; ValueError if it is no JSON Schema."""
    schema = on_any_stack(msgspec.json.decode)(schema_json)
    draft = _draft_of(schema)
    try:
        draft.check_schema(schema, format_checker=draft.FORMAT_CHECKER)
    except SchemaError as error:
        raise ValueError(f"no JSON Schema: {error.message} at {error.json_path}") from error
    except Exception as error:
        # Not every schema that is none is found out by the validator's own checks.
        raise ValueError(f"no JSON Schema: {type(error).__name__}: {error}") from error
    validator: Validator = draft(schema, registry=_NO_REMOTE_SCHEMAS)
    return validator


def _draft_of(schema: Any) -> Any:
    """Return the validator class of the draft that a schema is written in."""
    if isinstance(schema, bool) or (isinstance(schema, dict) and "$schema" not in schema):
        return Draft202012Validator
    if not isinstance(schema, dict):
        raise ValueError("a JSON Schema is an object or a boolean")  # noqa: TRY004 # reason: the value is wrong, read from JSON
    name = schema["$schema"]
    no_draft: Any = None
    draft = validator_for(schema, default=no_draft) if isinstance(name, str) else None
    if draft is None:
        raise ValueError(f"unknown $schema {shown(name)}")
    return draft


class Problem(msgspec.Struct, frozen=True):
    """Why a payload does not fit; or, `of_schema`, why nothing can be said: the schema is none."""

    text: str
    of_schema: bool = False


def problem_of(schema_json: str, payload: Any) -> Problem | None:
    """Say where and why `payload`, as it was read from JSON, does not fit a schema; None if it does.

    It may take as long as schema and payload please, so never where others wait for it.
    """
    try:
        validator = compile_schema(schema_json)
    except ValueError as error:
        return Problem(str(error), of_schema=True)
    text = _mismatch(validator, payload)
    return None if text is None else Problem(text)


def schema_text(schema: Any) -> str | None:
    """Return the JSON of a schema; None for one that takes anything, which needs no look."""
    return None if schema == {} or schema is True else encode_json(schema)


def _mismatch(validator: Validator, payload: Any) -> str | None:
    try:
        if validator.is_valid(payload):
            return None
        error: Any = best_match(validator.iter_errors(payload))
    except Unresolvable as unresolvable:
        return f"its schema refers to what is not part of it: {unresolvable}"
    except Exception as failure:  # noqa: BLE001 # reason: a reference may lead to what is no schema
        return f"its schema can't be applied: {type(failure).__name__}: {failure}"
    # The message holds the whole value: a report of a thousand mismatches must not hold it as often.
    return f"{shown(error.instance)} at {error.json_path}: {error.message[:_LONGEST]}"
