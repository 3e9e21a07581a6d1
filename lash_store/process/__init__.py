"""The process registry: background processes. Its tables are declared; operations are to come."""
