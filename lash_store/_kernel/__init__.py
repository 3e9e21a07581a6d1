"""What everything stands on: the rules, the statements, and the seam to a database. No I/O.

``backend`` is the seam, ``prepared`` runs a statement through it, ``leases`` is the lease
protocol in SQL, and ``liveness`` the one rule behind every claim. Nothing here knows a store
or a database.
"""
