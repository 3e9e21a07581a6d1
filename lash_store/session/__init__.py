"""The session store: one conversation's durable state.

``statements`` are the pure builders, ``tables`` the typed tables, ``records`` what goes in
and comes out, ``tx`` the operations on a transaction, ``store`` the sync and asyncio facades.
"""
