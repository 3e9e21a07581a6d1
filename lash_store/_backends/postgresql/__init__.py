"""PostgreSQL: how the statements and the schema of a shared database are written for it."""
