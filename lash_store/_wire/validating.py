"""The library ``jsonschema``, as payloads are checked with it: a module of its own, imported at the first schema.

A schema is compiled once, and nothing is ever fetched from elsewhere: a reference that leads out of
the schema can't be resolved. Its import is an eighth of that of the whole library.
"""

from functools import lru_cache, partial
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from lash_store._kernel.checks import shown
from lash_store._kernel.codecs import on_any_stack
from lash_store._kernel.signals import is_from_handler

_LONGEST: Final = 300

_NO_REMOTE_SCHEMAS: Final[Registry[Any]] = Registry()


@lru_cache(maxsize=1_024)  # some 20 KiB each
def compile_schema(schema_json: str) -> Validator:
    """Return the validator of one schema; ValueError if it is no JSON Schema."""
    schema = on_any_stack(msgspec.json.decode)(schema_json)
    draft = _draft_of(schema)
    try:
        on_any_stack(partial(draft.check_schema, format_checker=draft.FORMAT_CHECKER))(schema)
    except RecursionError:  # the caller has no frame left
        raise
    except SchemaError as error:
        raise ValueError(f"no JSON Schema: {error.message} at {error.json_path}") from error
    except Exception as error:
        _require_validators_own(error)
        # Not every schema that is none is found out by the validator's own checks.
        raise ValueError(f"no JSON Schema: {type(error).__name__}: {error}") from error
    validator: Validator = draft(schema, registry=_NO_REMOTE_SCHEMAS)
    return validator


def _require_validators_own(error: Exception) -> None:
    """Raise what says nothing of a schema: it has only struck as one was looked at (K-TX-10)."""
    if isinstance(error, MemoryError) or is_from_handler(error):
        raise error


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


def mismatch(validator: Validator, payload: Any) -> str | None:
    """Say where and why `payload` does not fit; None if it does."""
    try:
        error: Any = on_any_stack(lambda given: best_match(validator.iter_errors(given)))(payload)
    except Unresolvable as unresolvable:
        return f"its schema refers to what is not part of it: {unresolvable}"
    except Exception as failure:  # noqa: BLE001 # reason: a reference may lead to what is no schema
        _require_validators_own(failure)
        return f"its schema can't be applied: {type(failure).__name__}: {failure}"
    if error is None:
        return None
    # The message holds the whole value: a report of a thousand mismatches must not hold it as often.
    return f"{shown(error.instance)} at {error.json_path}: {error.message[:_LONGEST]}"
