"""Programs that use lash_store, whole."""
