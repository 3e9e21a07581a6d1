"""The trigger store: what starts when something occurs. Its tables are declared; operations are to come."""
