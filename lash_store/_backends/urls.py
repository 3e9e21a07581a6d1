"""URLs of databases: read, and shown without what must not be seen."""

import re

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from lash_store.errors import StoreOpenError


def parsed_url(text: str) -> URL:
    """Read a URL; StoreOpenError, without its text, in which a password may stand, for what is none."""
    try:
        text.encode()  # half a surrogate pair would only fail as it is quoted
        url = make_url(text)
    except (ArgumentError, ValueError):
        # What is said of it names a part, which may be of a password that was not quoted.
        url = None
    # No host has this in its name: it is the end of such a password.
    if url is None or "@" in (url.host or ""):
        why = "it is no URL of a database; what is special in a name or a password has to be quoted"
        raise StoreOpenError(scheme_of(text), why)
    return url


def scheme_of(text: str) -> str:
    """Return what a URL begins with."""
    return text.partition(":")[0]


_SECRET = re.compile("pass|pwd|secret|key|token", re.IGNORECASE)
"""In the names of what is shown to nobody, those that are misspelt too."""


def without_password(url: URL) -> str:
    """Return a URL as messages show it: a password may stand in several places."""
    secrets = [name for name in url.query if _SECRET.search(name)]
    return url._replace(password=None).difference_update_query(secrets).render_as_string()
