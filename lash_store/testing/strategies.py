"""Hypothesis strategies for what the stores' operations take."""

from hypothesis import strategies as st

from lash_store.clock import MAX_INT


def names() -> st.SearchStrategy[str]:
    """Owner, session and other ids: non-empty text that any database can hold, awkward ones included."""
    awkward = st.sampled_from(
        ["a", "A", " ", "'", '"', "%", "_", "\x01", "é", "日本", "🙂", "x" * 300]
    )
    return awkward | st.text(
        st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20
    )


def times_ms() -> st.SearchStrategy[int]:
    """Times in milliseconds since the epoch, the ends of the range included."""
    edges = st.sampled_from([0, 1, 2**31, 2**53, MAX_INT - 1, MAX_INT])
    return edges | st.integers(0, MAX_INT)


def ttls_ms() -> st.SearchStrategy[int]:
    """Lengths of terms in milliseconds: none, short, ordinary, and too long to add to a time."""
    return st.sampled_from([0, 1, 2, 10, 1_000, 30_000]) | times_ms()


def bad_counts() -> st.SearchStrategy[object]:
    """What is no time, duration or counter: every one of these is refused."""
    outside = st.integers(max_value=-1) | st.integers(min_value=MAX_INT + 1)
    return outside | st.sampled_from([True, False, None, 1.0, "1", float("nan")])


def bad_names() -> st.SearchStrategy[object]:
    """What can't name anything: every one of these is refused."""
    return st.sampled_from(["", None, 7, b"a", "\ud800", "ok\udfff", "a\0"])
