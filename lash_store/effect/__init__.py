"""The effect store: recorded outcomes, replayed by key. Its table is declared; operations are to come."""
