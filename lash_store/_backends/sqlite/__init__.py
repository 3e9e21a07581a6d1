"""The SQLite backend: the only folder that knows the driver ``sqlite3``.

From the outside in: ``database`` (one open file) and ``joining`` (a consumer's own transaction)
stand on ``opening``, that on ``guard``, ``connection`` and ``files``, and those on ``driver``
and ``dialect``. ``fairness`` and ``forking`` keep writers in turn and forks safe.
"""
