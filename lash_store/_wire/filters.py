"""Conditions on the records of more than one kind of store."""

from sqlalchemy import ColumnElement, and_, not_

from lash_store._kernel.dialects import HoldableJson, IsJsonString, IsNoJson, JsonText, is_null_or


def is_defined_by(
    definition: str | None,
    definition_json: str | None,
    record_json: ColumnElement[str],
    identity: str,
) -> ColumnElement[bool]:
    """A condition on the definition in a record's `identity`: the text, or the object or array, that is not NULL.

    Not one that only reads alike: ``"5"`` is not 5. What can't be read may match: whoever reads it says so.
    """
    text = JsonText(record_json, identity, "definition")
    is_text = IsJsonString(record_json, identity, "definition")
    broken = IsNoJson(record_json)
    return and_(
        is_null_or(definition, lambda given: and_(text == given, is_text), broken),
        is_null_or(
            definition_json, lambda given: and_(text == HoldableJson(given), not_(is_text)), broken
        ),
    )
