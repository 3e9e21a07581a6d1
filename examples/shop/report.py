"""A program of the shop's that knows nothing of lash_store: it reads and writes the shop's tables."""

import sqlite3
import sys
from contextlib import closing


def main() -> int:
    """Print what was ordered, and take a new customer."""
    with closing(sqlite3.connect(sys.argv[1], timeout=15)) as database, database:
        for name, item in database.execute(
            "SELECT name, item FROM orders JOIN customers ON customers.id = customer_id ORDER BY 1, 2"
        ):
            print(f"{name}: {item}")
        database.execute("INSERT INTO customers (name) VALUES ('new')")
        ((count, version),) = database.execute(
            "SELECT count(*), (SELECT user_version FROM pragma_user_version) FROM customers"
        )
        print(f"{count} customers, version {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
