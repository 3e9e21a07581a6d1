"""Statements of a turn's commit that belong to no other aggregate: receipts and usage."""

from sqlalchemy import Insert, Select, cast, func, insert, or_, select

from lash_store._kernel.prepared import prepare
from lash_store._kernel.schema import Int
from lash_store.session.tables import runtime_turn_commits, usage_deltas

_turns = runtime_turn_commits.c
_usage = usage_deltas.c


@prepare
def select_receipts() -> Select[str, str, str, str, int]:
    """Every receipt: session id, turn id, commit hash, result_json, committed-at."""
    return select(
        _turns.session_id,
        _turns.turn_id,
        _turns.turn_commit_hash,
        _turns.result_json,
        _turns.committed_at_ms,
    )


@prepare
def load_receipt(*, session_id: str, turn_id: str) -> Select[str, str, str, str, int]:
    """Read the receipt of one turn."""
    return select_receipts().where(_turns.session_id == session_id, _turns.turn_id == turn_id)


@prepare
def save_receipt(
    *,
    session_id: str,
    turn_id: str,
    commit_hash: str,
    result_json: str,
    committed_at_ms: int,
) -> Insert:
    """Store the receipt of a turn that has none."""
    return insert(runtime_turn_commits).values(
        session_id=session_id,
        turn_id=turn_id,
        turn_commit_hash=commit_hash,
        result_json=result_json,
        committed_at_ms=committed_at_ms,
    )


@prepare
def select_usage() -> Select[int, str, str, int, int, int, int]:
    """Every report of tokens used, as it was made: seq, source, model, and the four counts."""
    return select(
        _usage.seq,
        _usage.source,
        _usage.model,
        _usage.input_tokens,
        _usage.output_tokens,
        _usage.cached_input_tokens,
        _usage.reasoning_tokens,
    )


@prepare
def record_usage(
    *,
    source: str,
    model: str,
    input_tokens: int,
    output_tokens: int,
    cached_input_tokens: int,
    reasoning_tokens: int,
) -> Insert:
    """Add one report of tokens used."""
    reported = insert(usage_deltas).values(
        source=source,
        model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached_input_tokens,
        reasoning_tokens=reasoning_tokens,
    )
    return reported.inline()  # nobody asks for its number


@prepare
def load_usage() -> Select[str, str, int, int, int, int]:
    """Sum what was used by source and model, in order of first appearance (S-USAGE-1).

    Without the reports of nothing used: input, output and reasoning tokens together 0.
    """
    sums = [
        cast(func.sum(column), Int).label(column.name)  # PostgreSQL's sum is no integer
        for column in (
            _usage.input_tokens,
            _usage.output_tokens,
            _usage.cached_input_tokens,
            _usage.reasoning_tokens,
        )
    ]
    # Each by itself: together they may be more than an integer, and none is negative.
    used = or_(_usage.input_tokens != 0, _usage.output_tokens != 0, _usage.reasoning_tokens != 0)
    return (
        select(_usage.source, _usage.model, sums[0], sums[1], sums[2], sums[3])
        .where(used)
        .group_by(_usage.source, _usage.model)
        .order_by(func.min(_usage.seq))
    )
