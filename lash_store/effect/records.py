"""Effects: what is recorded of a step, and what beginning one can give."""

from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, get_args

import msgspec

from lash_store._kernel.checks import (
    check_count,
    check_kind,
    check_message,
    check_name,
    check_text,
    check_words,
    shown,
)
from lash_store._kernel.codecs import (
    decode_json,
    decode_object,
    encode_json,
    free_json,
    read_as,
    stable_hash,
)
from lash_store._kernel.liveness import Guarded, check_token
from lash_store.effect.tables import runtime_effect_replay
from lash_store.errors import CorruptRecordError, InvalidRecordError

EffectStatus = Literal["in_progress", "completed", "failed"]
"""Whether a step is being worked on, or how it ended."""

STATUSES: Final[tuple[str, ...]] = get_args(EffectStatus)

TTL_MS: Final = 30_000
"""How long a claim on a step holds unless it is renewed (E-BEGIN-1)."""

_TABLE: Final = runtime_effect_replay.name


class EffectClaim(Guarded, msgspec.Struct, frozen=True):
    """The right to bring about one step, and proof of it (E-BEGIN-1).

    Holds until `expires_at_ms` (exclusive) unless it is renewed. `due_at_ms` is the step's, from
    its first beginning. `token` is a secret. Times are milliseconds since the epoch.
    """

    shown: ClassVar = ("key", "owner_id", "token", "expires_at_ms")

    scope_id: str
    replay_key: str
    envelope_hash: str
    owner_id: str
    token: str
    expires_at_ms: int
    due_at_ms: int | None = None

    @property
    def fence(self) -> Self:
        """What proves it: itself."""
        return self

    @property
    def key(self) -> str:
        """Scope and replay key, for messages."""
        return key_of(self.scope_id, self.replay_key)


class EffectError(msgspec.Struct, frozen=True):
    """How a step failed for good."""

    code: str
    message: str


class Replayed(msgspec.Struct, frozen=True):
    """The step was done before, and gave `outcome`, JSON: a *value* of a beginning."""

    outcome: Any


class ReplayedFailure(msgspec.Struct, frozen=True):
    """The step failed before, for good: a *value* of a beginning."""

    error: EffectError


class Busy(msgspec.Struct, frozen=True):
    """Somebody else is at the step: the refusal *value* of a beginning.

    `owner_id` holds it until `retry_at_ms`, milliseconds since the epoch, and may renew.
    `due_at_ms` is the step's, from its first beginning.
    """

    owner_id: str
    retry_at_ms: int
    due_at_ms: int | None = None


Begun: TypeAlias = EffectClaim | Replayed | ReplayedFailure | Busy
"""What beginning a step can give."""


class Effect(msgspec.Struct, frozen=True):
    """A step as it is recorded. Times are milliseconds since the epoch.

    `outcome` is there if it is completed, `error` if it failed; `owner_id` and `expires_at_ms` are
    those of the last claim, None and 0 once it is over.
    """

    scope_id: str
    replay_key: str
    envelope_hash: str
    status: EffectStatus
    outcome: Any
    error: EffectError | None
    owner_id: str | None
    expires_at_ms: int
    due_at_ms: int | None
    created_at_ms: int
    updated_at_ms: int


class EffectTerm(Guarded, msgspec.Struct, frozen=True, array_like=True):
    """The row of a step, as far as it decides who may act on it."""

    shown: ClassVar = ("status", "owner_id", "token", "expires_at_ms")

    envelope_hash: str
    status: str
    outcome_json: str | None
    error_json: str | None
    owner_id: str | None
    token: str | None
    expires_at_ms: int
    due_at_ms: int | None


def turn_scope(session_id: str, turn_id: str) -> str:
    """Return the scope of a turn's steps: ``session/turn``.

    A bare turn id would do only as long as no two sessions have turns of one name (E-REC-1).
    A session id with a / in it is an InvalidRecordError: two sessions could share a scope.
    """
    return f"{_scope_of_session(session_id)}/{check_words('turn_id', turn_id)}"


def scopes_of_session(session_id: str) -> tuple[str, str]:
    """Return what the scopes of a session's turns are: from the first on, and before the second, as text."""
    session = _scope_of_session(session_id)
    return f"{session}/", f"{session}0"  # which follows the / in any order of bytes


def _scope_of_session(session_id: str) -> str:
    session = check_words("session_id", session_id)
    if "/" in session:
        raise InvalidRecordError(
            "session_id", ascii(session), "holds the / that ends it in a scope"
        )
    return session


def key_of(scope_id: str, replay_key: str) -> str:
    """Name a step in messages."""
    return f"{scope_id}:{replay_key}"


def hash_of(envelope: Any, envelope_hash: str | None) -> str:
    """Return the consumer's own hash, or the stable hash of the envelope (E-REC-1)."""
    if envelope_hash is None:
        return stable_hash(free_json("envelope", envelope))
    if envelope is not None:
        raise InvalidRecordError(
            "envelope_hash", shown(envelope_hash), "stands in place of an envelope, not beside one"
        )
    return check_name("envelope_hash", envelope_hash)


def check_ttl(ttl_ms: int) -> int:
    """Return `ttl_ms` if a claim can have it: at least 1 ms (E-BEGIN-1)."""
    if check_count("ttl_ms", ttl_ms) == 0:
        raise InvalidRecordError("ttl_ms", "0", "must be at least 1")
    return ttl_ms


def check_claim(claim: EffectClaim) -> None:
    """Raise InvalidRecordError unless `claim` is one, and nothing in it is of a wrong kind."""
    if not isinstance(claim, EffectClaim):
        # The type alone: a token in the place of its claim is still a secret.
        raise InvalidRecordError("claim", f"a {type(claim).__name__}", "must be an EffectClaim")
    for name in ("scope_id", "replay_key", "envelope_hash", "owner_id"):
        check_name(f"claim.{name}", getattr(claim, name))
    check_token("claim.token", claim.token)


def written_error(error: EffectError) -> str:
    """Check an error and return its JSON."""
    check_kind("error", error, EffectError)
    return encode_json(
        {
            "code": check_text("error.code", error.code),
            "message": check_message("error.message", error.message),
        }
    )


def read_term(scope_id: str, replay_key: str, row: tuple[object, ...]) -> EffectTerm:
    """Build the term from its row, however that ended; see :func:`ended`."""
    return read_as(EffectTerm, _TABLE, key_of(scope_id, replay_key), row)


def ended(scope_id: str, replay_key: str, term: EffectTerm) -> Replayed | ReplayedFailure | None:
    """Return how a step ended, decoded; None if it is in progress. CorruptRecordError by E-BEGIN-2."""
    key = key_of(scope_id, replay_key)
    if term.status not in STATUSES:
        raise CorruptRecordError(_TABLE, key, f"an unknown status {term.status!r}")
    if term.status == "completed":
        if term.outcome_json is None:
            raise CorruptRecordError(_TABLE, key, "it is completed, and has no outcome")
        return Replayed(decode_json(_TABLE, key, term.outcome_json))
    if term.status == "failed":
        if term.error_json is None:
            raise CorruptRecordError(_TABLE, key, "it has failed, and has no error")
        written = decode_object(_TABLE, key, term.error_json)
        return ReplayedFailure(read_as(EffectError, _TABLE, key, written))
    return None
