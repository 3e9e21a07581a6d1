"""The statements of a trigger store: arguments in, SQLAlchemy construct out, nothing run.

A ``Select`` can be filtered, joined and paged, and a write can run in a transaction of the
consumer's own. Every time is an argument, milliseconds since the epoch.
"""

from lash_store.trigger.statements.deliveries import (
    delete_occurrence as delete_occurrence,
    deliveries_of as deliveries_of,
    find_occurrence as find_occurrence,
    list_deliveries as list_deliveries,
    list_occurrence as list_occurrence,
    list_process as list_process,
    load_occurrence as load_occurrence,
    matching_subscriptions as matching_subscriptions,
    old_occurrences as old_occurrences,
    record_occurrence as record_occurrence,
    reserve_delivery as reserve_delivery,
    reserved_processes as reserved_processes,
    select_deliveries as select_deliveries,
    select_occurrences as select_occurrences,
)
from lash_store.trigger.statements.subscriptions import (
    delete_session as delete_session,
    delete_subscription as delete_subscription,
    find_subscription as find_subscription,
    is_registered_by as is_registered_by,
    list_source as list_source,
    list_subscriptions as list_subscriptions,
    next_subscription_number as next_subscription_number,
    register_subscription as register_subscription,
    select_subscriptions as select_subscriptions,
    update_subscription as update_subscription,
)
