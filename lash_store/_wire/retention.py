"""What a batch of retention did, of whatever is kept until somebody says that it is old."""

import msgspec


class Pruned(msgspec.Struct, frozen=True):
    """What a batch of retention did (T-RET-1, P-RET-1).

    `removed` of those `examined` are gone. `after` is what to pass for the next batch; None behind the
    last one.
    """

    removed: int
    examined: int
    after: str | None
