"""Content-addressed blobs: their kinds, how one is stored, and how one is read back."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, get_args

import msgspec

from lash_store._kernel.codecs import content_hash, encode_msgpack, on_any_stack

try:
    # With the extra `isal`: the same format by Intel's library, in an eighth of the time.
    from isal.isal_zlib import compress
except ImportError:
    from zlib import compress

_decode = on_any_stack(msgspec.msgpack.Decoder().decode)

BlobKind = Literal[
    "CheckpointManifest",
    "ProcessExecutionEnv",
    "ToolState",
    "PluginSessionSnapshot",
    "ExecutionStateSnapshot",
    "LashlangModule",
    "GenericBlob",
]
"""What a blob holds; it decides whether compressing is worth trying."""

Profile = Literal["low_latency", "balanced", "compact"]
"""When a compressible blob is compressed: never, from 4 KiB, from 1 KiB (S-BLOB-2)."""

KINDS: Final[tuple[str, ...]] = get_args(BlobKind)
PROFILES: Final[tuple[str, ...]] = get_args(Profile)

_COMPRESSIBLE: Final = ["Compressible"]
_LARGE: Final = ["Compressible", "LargePayload"]
_HINTS: Final[dict[BlobKind, list[str]]] = {
    "CheckpointManifest": _COMPRESSIBLE,
    "ProcessExecutionEnv": _COMPRESSIBLE,
    "ToolState": _LARGE,
    "PluginSessionSnapshot": _LARGE,
    "ExecutionStateSnapshot": _LARGE,
    "LashlangModule": _LARGE,
    "GenericBlob": [],
}
_COMPRESS_FROM: Final[dict[Profile, float]] = {
    "low_latency": float("inf"),
    "balanced": 4096,
    "compact": 1024,
}


def pack_blob(content: bytes, kind: BlobKind, profile: Profile) -> bytes:
    """Return what is stored for `content`: a MessagePack map with named fields (S-BLOB-1)."""
    hints = _HINTS[kind]
    is_long = bool(hints) and len(content) >= _COMPRESS_FROM[profile]
    descriptor: dict[str, Any] = {"kind": kind, **({"hints": hints} if hints else {})}
    return encode_msgpack(
        {
            "descriptor": descriptor,
            "compression": "Zlib" if is_long else "None",
            "content": compress(content) if is_long else content,
        }
    )


def unpack_blob(key: str, stored: object) -> bytes | None:
    """Return the content whose hash is `key`, or None if `stored` is no form of it (S-BLOB-3)."""
    return None if not isinstance(stored, bytes) else content_of(key, StoredBlob(stored).forms())


def content_of(key: str, forms: Iterable[bytes]) -> bytes | None:
    """Return the one whose hash is `key`: bare content may happen to look like a map."""
    return next((form for form in forms if content_hash(form) == key), None)


class StoredBlob:
    """What is stored as a blob, taken apart once."""

    def __init__(self, stored: bytes) -> None:
        self.bare = stored
        try:
            self._map: Any = _decode(stored)
        except (msgspec.DecodeError, TypeError, ValueError):
            self._map = None  # bare content

    def forms(self) -> Iterator[bytes]:
        """What its content may be: that of the map, as bin or as an array of integers, and the bare content."""
        packed = self._content_of_map()
        if packed is not None:
            yield packed
        yield self.bare

    @property
    def kind(self) -> str | None:
        """The kind that it names, whatever its content; None if it names none."""
        try:
            kind = self._map["descriptor"]["kind"]
        except (TypeError, LookupError):
            return None  # bare content
        return kind if isinstance(kind, str) else None

    def _content_of_map(self) -> bytes | None:
        try:
            held = self._map["content"]
            if not isinstance(held, (bytes, list)):
                return None  # bytes() of a number would allocate as many
            content = bytes(held)
            return zlib.decompress(content) if self._map["compression"] == "Zlib" else content
        except (TypeError, ValueError, LookupError, zlib.error):
            return None  # no map: the other form is left
