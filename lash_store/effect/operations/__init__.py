"""The operations of an effect store, and their list."""

from lash_store._stores.operations import Operations, reads, writes
from lash_store.effect.operations import attempts, sleeps, upkeep


class EffectOperations(Operations):
    """What an effect store does, on a transaction or by a call of its own."""

    __slots__ = ()

    begin_effect = writes(attempts.begin_effect)
    look_up_effect = reads(attempts.look_up_effect)
    renew_effect = writes(attempts.renew_effect)
    finish_effect = writes(attempts.finish_effect)
    fail_effect = writes(attempts.fail_effect)
    record_effect = writes(attempts.record_effect)
    abandon_effect = writes(attempts.abandon_effect)
    begin_sleep = writes(sleeps.begin_sleep)
    look_up_sleep = reads(sleeps.look_up_sleep)

    list_effects = reads(upkeep.list_effects)
    count_effects = reads(upkeep.count_effects)
    oldest_in_progress_ms = reads(upkeep.oldest_in_progress_ms)
    forget_scope = writes(upkeep.forget_scope)
    delete_session = writes(upkeep.delete_session)
    prune_effects = writes(upkeep.prune_effects)
