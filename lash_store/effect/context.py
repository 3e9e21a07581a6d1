"""What every transaction of an effect store shares: who begins steps through it."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from lash_store._kernel.checks import check_name
from lash_store._stores import tx as stores
from lash_store._stores.tx import Context
from lash_store.clock import Clock, IdSource, unique_owner_id

R = TypeVar("R")


class EffectContext(Context, frozen=True, kw_only=True):
    """What every transaction of one effect store shares."""

    owner_id: str


Tx: TypeAlias = stores.Tx[EffectContext]
"""What the work of an operation is a function of."""

Work: TypeAlias = Callable[[Tx], R]
"""What an operation returns once it has checked its arguments: the rest of it."""


def effect_context(owner_id: str | None, clock: Clock, ids: IdSource) -> EffectContext:
    """Check what an effect store is opened with; without an owner it gets a unique one."""
    owner = unique_owner_id() if owner_id is None else check_name("owner_id", owner_id)
    return EffectContext(clock, ids, owner_id=owner)
