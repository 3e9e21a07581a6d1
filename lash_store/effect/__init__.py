"""The effect store: the outcome of each non-deterministic step, recorded once and replayed.

``statements`` are for composing, ``tables`` and ``records`` for reading along; the store is
``lash_store.EffectStore``.
"""
