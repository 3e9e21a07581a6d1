"""The process registry: background processes, their events, and who runs them.

``statements`` are for composing, ``tables`` and ``records`` for reading along; the store is
``lash_store.ProcessRegistry``.
"""
