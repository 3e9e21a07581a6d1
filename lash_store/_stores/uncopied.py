"""What stands on something that is open, and can't be copied."""

from typing import NoReturn

from lash_store.errors import InvalidRecordError


class Uncopied:
    """A mix-in: it is neither pickled nor copied, which another process or a second owner could do nothing with."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        """Refuse."""
        raise InvalidRecordError(
            type(self).__name__,
            repr(self),
            "can't be pickled or copied: hand its path over, and open it where it is used",
        )
