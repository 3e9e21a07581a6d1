"""The trigger store: who wants to be started by what, what occurred, and what that reserved.

``statements`` are for composing, ``tables`` and ``records`` for reading along; the store is
``lash_store.TriggerStore``, and ``lash_store.routing`` leads from it to the process registry.
"""
