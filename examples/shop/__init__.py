"""A shop with tables, an ORM and migrations of its own, and lash_store beside them."""
