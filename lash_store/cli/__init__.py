"""The ``lash-store`` command, also ``python -m lash_store`` (extra: ``cli``)."""

import sys


def main() -> None:
    """Run the command; without the extra, say how to get it."""
    try:
        _run()
    except KeyboardInterrupt:  # as it is still being loaded
        sys.exit(130)


def _run() -> None:
    try:
        from lash_store.cli.app import app  # noqa: PLC0415 # reason: the extra may be missing
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f"the lash-store command needs {error.name}: pip install 'lash-store[cli]'")
    try:
        app()
    except OSError as error:  # where it writes to, say
        sys.exit(f"lash-store: {error}")
