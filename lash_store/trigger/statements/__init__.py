"""The statements of a trigger store: arguments in, SQLAlchemy construct out, nothing run.

A ``Select`` can be filtered, joined and paged, and a write can run in a transaction of the
consumer's own. Every time is an argument, milliseconds since the epoch.
"""

from lash_store.trigger.statements.deliveries import (
    delete_occurrence,
    deliveries_of,
    find_occurrence,
    list_deliveries,
    load_occurrence,
    matching_subscriptions,
    old_occurrences,
    record_occurrence,
    reserve_delivery,
    reserved_processes,
    select_deliveries,
    select_occurrences,
)
from lash_store.trigger.statements.subscriptions import (
    delete_session,
    delete_subscription,
    find_subscription,
    is_registered_by,
    list_subscriptions,
    next_subscription_number,
    register_subscription,
    select_subscriptions,
    update_subscription,
)

__all__ = [
    "delete_occurrence",
    "delete_session",
    "delete_subscription",
    "deliveries_of",
    "find_occurrence",
    "find_subscription",
    "is_registered_by",
    "list_deliveries",
    "list_subscriptions",
    "load_occurrence",
    "matching_subscriptions",
    "next_subscription_number",
    "old_occurrences",
    "record_occurrence",
    "register_subscription",
    "reserve_delivery",
    "reserved_processes",
    "select_deliveries",
    "select_occurrences",
    "select_subscriptions",
    "update_subscription",
]
