"""The root of every error."""


class LashStoreError(Exception):
    """The root of every error that this library raises."""
