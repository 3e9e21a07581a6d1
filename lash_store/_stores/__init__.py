"""What every store is made of: its transactions, its list of operations, its two facades.

``tx`` stands on the seam, ``operations`` makes one list into three classes, ``store`` and
``async_store`` are what a consumer opens, and ``leasing`` is the lease protocol's operations.
Nothing here knows which stores there are.
"""
