"""What the four stores share; nothing in here knows a store."""
