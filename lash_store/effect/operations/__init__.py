"""The operations of an effect store: functions of an open transaction, and their list."""

from lash_store._stores.operations import Operations, legacy_reads, legacy_writes, reads, writes
from lash_store.effect.operations import attempts, upkeep


class EffectOperations(Operations):
    """What an effect store does, on a transaction or by a call of its own."""

    __slots__ = ()

    begin_effect = legacy_writes(attempts.begin_effect)
    look_up_effect = legacy_reads(attempts.look_up_effect)
    renew_effect = legacy_writes(attempts.renew_effect)
    finish_effect = legacy_writes(attempts.finish_effect)
    fail_effect = legacy_writes(attempts.fail_effect)
    abandon_effect = legacy_writes(attempts.abandon_effect)
    begin_sleep = legacy_writes(attempts.begin_sleep)
    look_up_sleep = legacy_reads(attempts.look_up_sleep)

    list_effects = legacy_reads(upkeep.list_effects)
    count_effects = legacy_reads(upkeep.count_effects)
    oldest_in_progress_ms = legacy_reads(upkeep.oldest_in_progress_ms)
    forget_scope = legacy_writes(upkeep.forget_scope)
    prune_effects = legacy_writes(upkeep.prune_effects)
