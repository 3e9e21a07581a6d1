"""Write schema/*.sql from the MetaData: ``python -m tests.support.render_schema``."""

from __future__ import annotations

from pathlib import Path

from lash_store.schemas import SCHEMAS, render, render_all

if __name__ == "__main__":
    for kind, schema in SCHEMAS.items():
        target = Path(__file__).parents[2] / "schema" / f"{kind}.sql"
        target.write_text(render(schema), encoding="utf-8")
    shared = render_all(SCHEMAS.values(), dialect="postgresql")
    (Path(__file__).parents[2] / "schema" / "postgresql.sql").write_text(shared, encoding="utf-8")
