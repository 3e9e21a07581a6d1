"""``python -m lash_store`` is the ``lash-store`` command."""

from lash_store.cli import main

if __name__ == "__main__":
    main()
