"""S-ATT, S-GC and S-DIR, rule by rule."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

import msgspec
import pytest
from hypothesis import given

from lash_store import AsyncSessionStore, SessionStore
from lash_store.errors import (
    CollectionWarning,
    CorruptRecordError,
    InvalidRecordError,
    ReadOnlyStoreError,
    SchemaVersionError,
    StoreBusyError,
    StoreOpenError,
)
from lash_store.schemas import check_file, mend_file
from lash_store.session.directory import SessionDirectory
from lash_store.session.places import file_name
from lash_store.session.records import (
    Append,
    Attachment,
    Checkpoint,
    Manifest,
    NewWork,
    Node,
    Relation,
    SessionMeta,
    TurnCommit,
    TurnReceipt,
    TurnStamp,
)
from lash_store.session.records.blobs import pack_blob
from lash_store.testing import ManualClock, strategies
from tests.support.databases import all_rows, run_script
from tests.support.processes import Says, workers
from tests.support.sessions import commit, lease_of


class TestAttachments:
    def test_s_att_1_an_intent_is_recorded_and_refreshed_until_committed(
        self, store: SessionStore, path: Path, clock: ManualClock
    ) -> None:
        assert store.record_attachment_intent("a", canonical_uri="u")
        clock.advance(5)
        assert store.record_attachment_intent("a", canonical_uri="other", session_id="other")
        assert all_rows(path)["attachment_manifest"] == [("a", "s", "u", clock.now_ms(), None)]
        assert store.commit_attachments(["a"]) == 1
        before = all_rows(path)
        clock.advance(5)
        assert not store.record_attachment_intent("a", canonical_uri="u")
        assert store.commit_attachments(["a"]) == 0  # the first stamp stays
        assert all_rows(path) == before

    def test_s_att_1_only_this_sessions_are_committed(
        self, store: SessionStore, path: Path
    ) -> None:
        store.record_attachment_intent("mine", canonical_uri="u")
        store.record_attachment_intent("theirs", canonical_uri="u", session_id="other")
        assert store.commit_attachments(["mine", "theirs", "unknown"]) == 1
        commit(store, attachment_ids=["theirs"])
        stamped = {row[0]: row[4] is not None for row in all_rows(path)["attachment_manifest"]}
        assert stamped == {"mine": True, "theirs": False}
        assert store.commit_attachments(["theirs"], session_id="other") == 1

    def test_s_att_1_uncommitted_ones_are_listed_oldest_first_up_to_a_time(
        self, store: SessionStore
    ) -> None:
        for name, at_ms in (("c", 30), ("b", 20), ("a", 20), ("d", 31), ("done", 1)):
            store.record_attachment_intent(name, canonical_uri="u", intent_at_ms=at_ms)
        store.commit_attachments(["done"])
        listed = store.list_uncommitted_attachments(older_than_ms=30)
        assert [each.attachment_id for each in listed] == ["a", "b", "c"]
        assert listed[0] == Attachment("a", "s", "u", 20, None)
        assert store.list_uncommitted_attachments(older_than_ms=19) == []
        assert store.forget_attachment("a") is True
        assert store.forget_attachment("a") is False

    def test_s_att_1_one_that_was_listed_is_swept_unless_somebody_has_it_since(
        self, store: SessionStore, path: Path
    ) -> None:
        names = ("at the time", "committed since", "announced anew", "later")
        for name, at_ms in zip(names, (30, 20, 20, 31), strict=True):
            store.record_attachment_intent(name, canonical_uri="u", intent_at_ms=at_ms)
        commit(store, attachment_ids=["committed since"])
        store.record_attachment_intent("announced anew", canonical_uri="u", intent_at_ms=31)
        before = all_rows(path)
        for name in (*names[1:], "unknown"):
            assert store.sweep_attachment(name, older_than_ms=30) is False
        assert all_rows(path) == before
        assert store.sweep_attachment("at the time", older_than_ms=30) is True
        assert store.sweep_attachment("at the time", older_than_ms=30) is False
        left = sorted(row[0] for row in all_rows(path)["attachment_manifest"])
        assert left == sorted(names[1:])

    @pytest.mark.canonical("writes to the tables by their canonical names")
    @pytest.mark.parametrize("spoilt", ["canonical_uri = x'ff'", "intent_at_ms = 1.5"])
    def test_s_att_1_one_that_cant_be_read_is_corrupt(
        self, store: SessionStore, path: Path, spoilt: str
    ) -> None:
        store.record_attachment_intent("a", canonical_uri="u", intent_at_ms=1)
        run_script(path, f"UPDATE attachment_manifest SET {spoilt}")
        with pytest.raises(CorruptRecordError, match="attachment_manifest"):
            store.list_uncommitted_attachments(older_than_ms=9)

    @given(bad=strategies.bad_names())
    def test_s_att_1_bad_names_are_refused(self, store: SessionStore, path: Path, bad: Any) -> None:
        store.record_attachment_intent("a", canonical_uri="u")
        before = all_rows(path)
        calls: list[Any] = [
            lambda: store.record_attachment_intent(bad, canonical_uri="u"),
            lambda: store.record_attachment_intent("b", canonical_uri=bad),
            lambda: store.commit_attachments(["a", bad]),
            lambda: store.forget_attachment(bad),
            lambda: store.sweep_attachment(bad, older_than_ms=9),
            lambda: store.put_artifact(bad, kind="k", content=b""),
            lambda: store.put_artifact("a", kind=bad, content=b""),
            lambda: store.load_artifact(bad),
        ]
        for call in calls:
            with pytest.raises(InvalidRecordError):
                call()
        assert all_rows(path) == before

    @pytest.mark.parametrize(
        ("kind", "blob_kind"),
        [
            ("process_execution_env", "ProcessExecutionEnv"),
            ("lashlang_module", "LashlangModule"),
            ("anything else", "GenericBlob"),
        ],
    )
    def test_s_att_2_artifacts_have_blobs_of_their_kind(
        self, store: SessionStore, path: Path, kind: str, blob_kind: str
    ) -> None:
        key = store.put_artifact("ref", kind=kind, content=b"one")
        ((_, stored),) = all_rows(path)["blobs"]
        assert msgspec.msgpack.decode(stored)["descriptor"]["kind"] == blob_kind
        assert key == hashlib.sha256(b"one").hexdigest()
        assert store.load_artifact("ref") == b"one"
        assert store.load_artifact("none") is None
        store.put_artifact("ref", kind=kind, content=b"two")
        assert store.load_artifact("ref") == b"two"
        assert len(all_rows(path)["artifact_refs"]) == 1

    @pytest.mark.sqlite("a column of a server has one type")
    def test_k_codec_2_a_ref_that_is_no_text_is_named_as_it_is(
        self, store: SessionStore, path: Path
    ) -> None:
        store.put_artifact("ref", kind="k", content=b"one")
        run_script(path, "UPDATE artifact_refs SET blob_ref = x'ff'")
        with pytest.raises(CorruptRecordError) as caught:
            store.load_artifact("ref")
        assert (caught.value.table, caught.value.key) == ("artifact_refs", "ref")

    def test_s_att_2_a_ref_without_its_blob_is_corrupt(
        self, store: SessionStore, path: Path
    ) -> None:
        store.put_artifact("ref", kind="k", content=b"one")
        run_script(path, "DELETE FROM blobs")
        with pytest.raises(CorruptRecordError, match="artifact_refs"):
            store.load_artifact("ref")


FULL = Checkpoint(turn_state=1, tool_state="t", plugin_snapshot="p", execution_state=b"e")


class TestCollection:
    def test_s_gc_1_what_a_root_leads_to_stays_and_the_rest_goes(
        self, store: SessionStore, path: Path
    ) -> None:
        commit(store, checkpoint=Checkpoint(turn_state="old", tool_state="old"))
        receipt = commit(store, checkpoint=FULL)
        kept = store.put_artifact("artifact", kind="k", content=b"artifact")
        lost = store.put_blob(b"alone")
        assert receipt.checkpoint_ref is not None
        assert receipt.manifest is not None
        plan = store.collect_blobs(dry_run=True)
        before = all_rows(path)
        assert len(before["blobs"]) == 8
        report = store.collect_blobs()
        assert report == msgspec.structs.replace(plan, dry_run=False)
        assert report.roots == tuple(sorted([receipt.checkpoint_ref, kept]))
        assert (report.retained, len(report.deleted), report.missing_roots) == (5, 3, ())
        assert lost in report.deleted
        sizes = {key: len(content) for key, content in before["blobs"]}
        assert report.deleted_bytes == sum(sizes[key] for key in report.deleted)
        left = {key for key, _ in all_rows(path)["blobs"]}
        assert left == {kept, receipt.checkpoint_ref, *receipt.manifest.component_refs}
        assert store.load_checkpoint(receipt.checkpoint_ref) is not None
        assert store.collect_blobs().deleted == ()

    @pytest.mark.parametrize("dry_run", [None, "no", 0])
    def test_s_gc_1_what_is_no_answer_to_dry_run_deletes_nothing(
        self, store: SessionStore, path: Path, dry_run: Any
    ) -> None:
        store.put_blob(b"on its own")
        before = all_rows(path)
        with pytest.raises(InvalidRecordError, match="dry_run"):
            store.collect_blobs(dry_run=dry_run)
        with pytest.raises(InvalidRecordError, match="repeatable"):
            store.transact(lambda tx: tx.put_blob(b"x"), repeatable=dry_run)
        assert all_rows(path) == before

    def test_s_gc_1_a_manifest_keeps_its_components_whichever_root_reaches_it(
        self, store: SessionStore, path: Path
    ) -> None:
        old = commit(store, checkpoint=FULL)
        assert old.checkpoint_ref is not None
        commit(store, checkpoint=Checkpoint(turn_state="new"))
        run_script(path, f"INSERT INTO artifact_refs VALUES ('saved', '{old.checkpoint_ref}')")
        store.collect_blobs()
        loaded = store.load_checkpoint(old.checkpoint_ref)
        assert loaded is not None
        assert loaded.execution_state == b"e"

    def test_s_gc_1_missing_roots_are_reported(self, store: SessionStore, path: Path) -> None:
        run_script(path, "INSERT INTO artifact_refs VALUES ('gone', 'nothing')")
        report = store.collect_blobs()
        assert (report.roots, report.missing_roots) == (("nothing",), ("nothing",))

    @pytest.mark.parametrize("what", ["manifest", "head"])
    def test_s_gc_2_what_can_not_be_read_aborts_with_nothing_deleted(
        self, store: SessionStore, path: Path, what: str
    ) -> None:
        receipt = commit(store, checkpoint=FULL)
        store.put_blob(b"alone")
        if what == "head":
            run_script(path, "UPDATE session_head SET head_json = '{'")
        else:
            run_script(
                path, f"UPDATE blobs SET content = x'c1' WHERE hash = '{receipt.checkpoint_ref}'"
            )
        before = all_rows(path)
        for dry_run in (True, False):
            with pytest.raises(CorruptRecordError):
                store.collect_blobs(dry_run=dry_run)
        assert all_rows(path) == before

    def test_s_gc_1_a_manifest_that_was_stored_as_something_else_first_keeps_its_components(
        self, store: SessionStore
    ) -> None:
        old = commit(store, checkpoint=FULL)
        assert old.checkpoint_ref is not None
        manifest = store.load_blob(old.checkpoint_ref)
        assert manifest is not None
        commit(store, checkpoint=Checkpoint(turn_state="new"))
        store.collect_blobs()
        store.put_artifact("saved", kind="any", content=manifest)
        again = commit(store, checkpoint=FULL)
        assert again.checkpoint_ref == old.checkpoint_ref
        commit(store, checkpoint=Checkpoint(turn_state="newer"))
        store.collect_blobs()
        assert store.load_checkpoint(old.checkpoint_ref).tool_state == "t"

    def test_s_gc_2_a_broken_manifest_aborts_whichever_root_reaches_it(
        self, store: SessionStore, path: Path
    ) -> None:
        old = commit(store, checkpoint=FULL)
        commit(store, checkpoint=Checkpoint(turn_state="new"))
        run_script(path, f"INSERT INTO artifact_refs VALUES ('saved', '{old.checkpoint_ref}')")
        content = pack_blob(b"broken", "CheckpointManifest", "balanced").hex()
        run_script(
            path, f"UPDATE blobs SET content = x'{content}' WHERE hash = '{old.checkpoint_ref}'"
        )
        before = all_rows(path)
        with pytest.raises(CorruptRecordError):
            store.collect_blobs()
        assert all_rows(path) == before

    @pytest.mark.canonical("SQLite takes anything as the content of a canonical table")
    def test_s_gc_2_an_artifact_s_blob_that_is_no_bytes_is_no_manifest(
        self, store: SessionStore, path: Path
    ) -> None:
        ref = store.put_artifact("saved", kind="env", content=b"content")
        run_script(path, f"UPDATE blobs SET content = 0 WHERE hash = '{ref}'")
        assert store.collect_blobs(dry_run=True).deleted == ()
        with pytest.raises(CorruptRecordError, match="does not have the key's hash"):
            store.load_artifact("saved")

    @pytest.mark.canonical("SQLite takes anything as the key of a canonical table")
    @pytest.mark.parametrize(
        "row",
        ["blobs (hash, content) VALUES (NULL, x'00')", "artifact_refs VALUES ('saved', x'00')"],
    )
    def test_s_gc_2_a_key_that_is_no_text_aborts_with_nothing_deleted(
        self, store: SessionStore, path: Path, row: str
    ) -> None:
        store.put_blob(b"alone")
        run_script(path, f"INSERT INTO {row}")
        before = all_rows(path)
        with pytest.raises(CorruptRecordError, match="key is text"):
            store.collect_blobs()
        if row.startswith("artifact_refs"):
            with pytest.raises(CorruptRecordError, match=r"saved.* key is text, not b"):
                store.load_artifact("saved")
        assert all_rows(path) == before


def message(role: str, *parts: Any) -> dict[str, Any]:
    body = {"id": "m", "role": role, "parts": list(parts)}
    return {"kind": "event", "event": {"Conversation": body}}


def part(kind: str, content: Any = None) -> dict[str, Any]:
    return {"id": "p", "kind": kind, "content": content, "prune_state": "Full"}


class TestSummary:
    META = SessionMeta("s", "name", "unix:1", "m", "/cwd", Relation("child", "parent"))

    def test_s_gc_3_without_meta_there_is_none(self, store: SessionStore) -> None:
        assert store.load_summary() is None

    def test_s_gc_3_counts_and_shows_the_first_user_message(self, store: SessionStore) -> None:
        store.save_meta(self.META)
        empty = store.load_summary()
        assert empty is not None
        assert (empty.user_messages, empty.first_user_message) == (0, "")
        assert (empty.cwd, empty.relation) == ("/cwd", self.META.relation)
        first = [
            part("Text", "  first line "),
            part("ToolCall", "call"),
            part("Text", "   "),
            part("Image", "base64"),
            part("ToolResult", "result"),
            part("Text", "last"),
            part("Text", None),
        ]
        nodes = [
            Node("0", None, message("System", part("Text", "not this"))),
            Node("1", "0", message("User", *first)),
            Node("2", "1", {"kind": "plugin", "event": message("User")["event"]}),
            Node("3", "1", message("Assistant", part("Text", "nor this"))),
            Node("4", "0", message("User", part("Text", "another branch"))),
        ]
        commit(store, Append(nodes, "4"))
        summary = store.load_summary()
        assert summary is not None
        assert summary.user_messages == 2
        assert summary.first_user_message == "first line \n\n[Image attached]\n\nlast"
        store.tombstone_nodes(["1"])
        summary = store.load_summary()
        assert summary is not None
        assert (summary.user_messages, summary.first_user_message) == (1, "another branch")

    def test_s_gc_3_what_reads_like_a_users_up_to_a_nul_is_none(self, store: SessionStore) -> None:
        store.save_meta(self.META)
        spoken = message("User", part("Text", "a user's"))
        nodes = [
            Node("1", None, {**spoken, "kind": "event\0"}),
            Node("2", "1", message("User\0ish", part("Text", "nobody's"))),
            Node("3", "2", message("User", part("Text", r"\u0000 is a NUL: " + "\0"))),
        ]
        commit(store, Append(nodes, "3"))
        summary = store.load_summary()
        assert summary is not None
        assert (summary.user_messages, summary.first_user_message) == (
            1,
            r"\u0000 is a NUL: " + "\0",
        )

    def test_s_gc_3_a_role_may_be_written_in_any_way_that_json_knows(
        self, store: SessionStore, path: Path
    ) -> None:
        store.save_meta(self.META)
        commit(store, Append([Node("1", None, message("User", part("Text", "hello")))], "1"))
        run_script(
            path, "UPDATE graph_nodes SET node_json = replace(node_json, 'User', '\\u0055ser')"
        )
        stored = repr(all_rows(path))
        assert "u0055ser" in stored
        summary = store.load_summary()
        assert summary is not None
        assert (summary.user_messages, summary.first_user_message) == (1, "hello")

    @pytest.mark.parametrize(
        ("parts", "text"),
        [
            ("no list", ""),
            (None, ""),
            (["no part", 7, None, part("Text", "hello")], "hello"),
            ([{"kind": "Text", "content": ["no text"]}, part("Text", "hello")], "hello"),
        ],
    )
    def test_s_gc_3_what_is_no_part_is_left_out(
        self, store: SessionStore, parts: Any, text: str
    ) -> None:
        """A node's event is the consumer's own: it was taken so, and is read so everywhere else."""
        store.save_meta(self.META)
        event = {"Conversation": {"role": "User", "parts": parts}}
        commit(store, Append([Node("1", None, {"kind": "event", "event": event})], "1"))
        summary = store.load_summary()
        assert summary is not None
        assert (summary.user_messages, summary.first_user_message) == (1, text)


def create_same(say: Says, root: Path) -> None:
    say("ready")
    say.wait()
    with SessionDirectory(root).create(
        "same", model=f"model-{id(say)}-{threading.get_ident()}"
    ) as store:
        meta = store.load_meta()
        say(None if meta is None else meta.model)


class TestDirectory:
    @pytest.mark.parametrize(
        ("session_id", "readable"),
        [
            ("chat-42", "chat-42"),
            ("a/b c", "a_b_c"),
            ("../../etc/passwd", "etc_passwd"),
            ("___", "session"),
            ("é", "session"),
            ("_a_", "a"),
            ("x" * 200, "x" * 80),
        ],
    )
    def test_s_dir_1_file_names(self, session_id: str, readable: str) -> None:
        digest = hashlib.sha256(session_id.encode()).hexdigest()[:16]
        assert file_name(session_id) == f"{readable}-{digest}.db"

    @given(session_id=strategies.names())
    def test_s_dir_1_no_id_leads_out_of_the_root(self, session_id: str) -> None:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}-[0-9a-f]{16}\.db", file_name(session_id))

    def test_s_dir_2_create_makes_what_is_missing_and_preserves_what_is_there(
        self, tmp_path: Path
    ) -> None:
        directory = SessionDirectory(tmp_path / "deep" / "root")
        with directory.create("a", model="one") as store:
            meta = store.load_meta()
        assert meta is not None
        assert (meta.session_id, meta.session_name, meta.model) == ("a", "a", "one")
        assert meta.cwd == str(Path.cwd())
        assert re.fullmatch(r"unix:\d+", meta.created_at)
        assert stat.S_IMODE(directory.root.stat().st_mode) == 0o700
        with directory.create("a", model="two", session_name="other", cwd="/") as store:
            assert store.load_meta() == meta
        named = Relation("child", "a")
        with directory.create("b", model="m", session_name="n", cwd="/x", relation=named) as store:
            found = store.load_meta()
        assert found is not None
        assert (found.session_name, found.cwd, found.relation) == ("n", "/x", named)

    def test_s_dir_2_creators_at_once_agree(self, tmp_path: Path) -> None:
        with workers(6, create_same, tmp_path) as creators:
            for creator in creators:
                creator.receive()
            for creator in creators:
                creator.pipe.send("go")
            assert len({creator.receive() for creator in creators}) == 1

    @pytest.mark.posix("the folder's lock")
    @pytest.mark.canonical("a folder with a file for each session")
    def test_k_tx_3_the_folder_s_lock_is_waited_for_as_long_as_any(self, tmp_path: Path) -> None:
        """Another process may have been stopped as it made a session."""
        import fcntl  # noqa: PLC0415 # reason: POSIX alone has it

        directory = SessionDirectory(tmp_path, busy_timeout_ms=30)
        directory.create("a", model="m").close()
        with (tmp_path / ".lock").open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            for call in (
                lambda: directory.create("b", model="m"),
                lambda: directory.open("a"),
                lambda: directory.delete("a"),
            ):
                with pytest.raises(StoreBusyError, match="the folder's lock"):
                    call()
            fcntl.flock(held, fcntl.LOCK_SH)
            directory.create("b", model="m").close()
        assert directory.delete("a")

    def test_k_open_5_a_directory_is_closed_beside_threads_that_open_sessions(
        self, tmp_path: Path
    ) -> None:
        """As the list of what is open is taken, another thread adds to it."""
        directory = SessionDirectory(tmp_path)
        store = directory.create("a", model="m")

        class Changes(WeakSet[SessionStore]):
            tries = 0

            def __iter__(self) -> Iterator[SessionStore]:
                Changes.tries += 1
                if Changes.tries == 1:
                    raise RuntimeError("Set changed size during iteration")
                return super().__iter__()

        directory._opened = Changes(directory._opened)
        Changes.tries = 0
        directory.close()
        assert Changes.tries == 2
        assert store.closed

    def test_s_dir_2_open_creates_nothing(self, tmp_path: Path) -> None:
        directory = SessionDirectory(tmp_path / "root")
        assert directory.open("a") is None
        assert not directory.root.exists()
        directory.create("a", model="m").close()
        store = directory.open("a", read_only=True)
        assert store is not None
        assert store.load_meta() is not None
        store.close()

    @pytest.mark.posix("there is no lock of the folder")
    def test_s_dir_2_delete_removes_everything_and_is_idempotent(self, tmp_path: Path) -> None:
        directory = SessionDirectory(tmp_path)
        store = directory.create("a", model="m")
        lease_of(store)
        with pytest.raises(StoreBusyError):
            directory.delete("a")
        assert store.current_lease() is not None  # nothing was harmed
        lease_of(store)
        store.close()
        assert directory.delete("a") is True
        assert directory.delete("a") is False
        assert [each.name for each in tmp_path.iterdir()] == [".lock"]

    @pytest.mark.posix("kills by SIGKILL")
    @pytest.mark.parametrize(
        "by_url",
        [pytest.param(False, marks=pytest.mark.canonical("the files of a folder")), True],
    )
    def test_s_dir_2_what_only_reads_makes_and_removes_nothing(
        self, tmp_path: Path, by_url: bool
    ) -> None:
        where = f"sqlite:///{tmp_path}/all.db" if by_url else tmp_path / "folder"
        with SessionDirectory(where) as directory:
            directory.create("there", model="m")
        with SessionDirectory(where, read_only=True) as directory:
            before = [entry.file_name for entry in directory.list()]
            for refused in (
                lambda: directory.delete("there"),
                lambda: directory.create("new", model="m"),
                lambda: directory.create("there", model="m"),
            ):
                with pytest.raises(ReadOnlyStoreError):
                    refused()
            assert [entry.file_name for entry in directory.list()] == before
            assert directory.open("there") is not None
            assert directory.open("new") is None

    @pytest.mark.posix("kills")
    def test_s_dir_2_delete_is_refused_while_another_process_uses_it(self, tmp_path: Path) -> None:
        directory = SessionDirectory(tmp_path)
        with workers(1, hold_open, tmp_path) as (holder,):
            holder.receive()
            with pytest.raises(StoreBusyError, match="whoever has it open, in this process or"):
                directory.delete("held")
            holder.kill()
        assert directory.delete("held") is True
        assert [each.name for each in tmp_path.iterdir()] == [".lock"]

    @pytest.mark.canonical("the files of a folder")
    def test_s_dir_2_list_pages_through_sessions_with_their_meta(self, tmp_path: Path) -> None:
        directory = SessionDirectory(tmp_path)
        assert SessionDirectory(tmp_path / "none").list() == []
        for name in ("a", "b", "c"):
            directory.create(name, model="m").close()
        SessionStore.open(directory.path_of("d"), session_id="d").close()
        (tmp_path / "notes.txt").touch()
        page = directory.list(limit=2)
        rest = directory.list(after=page[-1].file_name)
        metas = [entry.meta for entry in [*page, *rest]]
        assert [meta and meta.session_id for meta in metas] == ["a", "b", "c", None]
        run_script(directory.path_of("b"), "PRAGMA user_version = 99")
        with pytest.raises(SchemaVersionError):
            directory.list()

    def test_s_dir_2_bad_input_creates_nothing(self, tmp_path: Path) -> None:
        directory = SessionDirectory(tmp_path / "root")
        with pytest.raises(InvalidRecordError):
            directory.create("", model="m")
        with pytest.raises(InvalidRecordError):
            directory.create("a", model="\0")
        with pytest.raises(InvalidRecordError):
            directory.create("a", model="m", relation=Relation("child"))
        assert not directory.path_of("a").exists()

    @pytest.mark.posix("has a lock file in the folder")
    def test_s_dir_2_what_the_system_refuses_is_our_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        wrong = SessionDirectory(tmp_path / "file")
        with pytest.raises(StoreOpenError):
            wrong.create("a", model="m")
        for call in (lambda: wrong.delete("a"), wrong.list):
            with pytest.raises(StoreOpenError):
                call()
        directory = SessionDirectory(tmp_path / "root")
        directory.root.mkdir()
        directory.path_of("folder").mkdir()
        with pytest.raises(StoreOpenError):
            directory.delete("folder")
        for bad in (None, 7):
            with pytest.raises(InvalidRecordError):
                SessionDirectory(bad)  # type: ignore[arg-type] # reason: that is the test
            with pytest.raises(InvalidRecordError):
                directory.list(after=bad)  # type: ignore[arg-type] # reason: that is the test

    @pytest.mark.canonical("the files of a folder")
    def test_s_dir_2_what_is_being_created_is_not_listed_yet(self, tmp_path: Path) -> None:
        directory = SessionDirectory(tmp_path)
        directory.create("a", model="m").close()
        directory.path_of("b").touch()
        assert [entry.meta and entry.meta.session_id for entry in directory.list()] == ["a"]

    @pytest.mark.posix("there is no lock of the folder")
    @pytest.mark.sqlite("the files of a folder")
    def test_s_dir_2_list_goes_by_the_directorys_options(self, tmp_path: Path) -> None:
        with SessionDirectory(tmp_path, busy_timeout_ms=100) as directory:
            directory.create("a", model="m").close()
            with closing(sqlite3.connect(directory.path_of("a"), isolation_level=None)) as other:
                other.execute("PRAGMA journal_mode = DELETE")
                other.execute("BEGIN EXCLUSIVE")
                with pytest.raises(StoreBusyError) as busy:
                    directory.list()
                assert busy.value.waited_ms < 5_000

    @pytest.mark.posix("there is no lock of the folder")
    @pytest.mark.sqlite("the files of a folder")
    def test_s_dir_2_list_beside_who_deletes_and_makes_one_anew(self, tmp_path: Path) -> None:
        """None of what it opens is another file by the time that it reads it."""
        with workers(1, makes_and_deletes, tmp_path) as (other,):
            assert other.receive() == "ready"
            directory = SessionDirectory(tmp_path)
            until_s = time.monotonic() + 2
            while time.monotonic() < until_s:
                assert len(directory.list()) <= 1
            other.pipe.send("stop")
            assert other.receive() > 0

    @pytest.mark.posix("the folder's lock")
    @pytest.mark.sqlite("the files of a folder")
    def test_s_dir_2_delete_removes_the_file_behind_a_link(self, tmp_path: Path) -> None:
        directory = SessionDirectory(tmp_path / "sessions")
        directory.create("a", model="m").close()
        path, there = directory.path_of("a"), tmp_path / "big.db"
        path.rename(there)
        path.symlink_to(there)
        with cast("Any", directory.open("a")) as store:
            with pytest.raises(StoreBusyError):
                directory.delete("a")
            assert store.load_meta() is not None
        assert directory.delete("a")
        assert [each.name for each in tmp_path.iterdir()] == ["sessions"]
        assert [each.name for each in path.parent.iterdir()] == [".lock"]

    @pytest.mark.sqlite("the files of a folder")
    def test_s_dir_2_delete_removes_what_is_malformed(self, tmp_path: Path) -> None:
        directory = SessionDirectory(tmp_path)
        directory.create("a", model="m").close()
        path = directory.path_of("a")
        content = bytearray(path.read_bytes())
        content[100:180] = b"\xff" * 80
        path.write_bytes(content)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # which somebody is about
            with pytest.raises(StoreBusyError):
                directory.delete("a")
            assert path.exists()
        assert directory.delete("a")
        assert not path.exists()

    @pytest.mark.posix("the folder's lock")
    def test_s_dir_2_nobody_opens_what_is_being_deleted(self, tmp_path: Path) -> None:
        """Openers that commit, and a deleter: what was committed is there, or was deleted after."""
        with workers(2, open_and_write, tmp_path) as openers:
            for opener in openers:
                opener.receive()
            directory, deleted = SessionDirectory(tmp_path), 0
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                with suppress(StoreBusyError):
                    deleted += directory.delete("raced")
            for opener in openers:
                opener.pipe.send("stop")
            assert [opener.receive() for opener in openers] == [[], []]
        assert deleted


def makes_and_deletes(say: Says, root: Path) -> None:
    directory, deleted = SessionDirectory(root), 0
    say("ready")
    while not say._pipe.poll():
        directory.create("s", model="m").close()
        with suppress(StoreBusyError):  # somebody lists it now
            deleted += directory.delete("s")
    say(deleted)


def open_and_write(say: Says, root: Path) -> None:
    """Say where a store was open on a file that is not there any more."""
    directory, orphans = SessionDirectory(root), []
    say("ready")
    while not say._pipe.poll():
        with directory.create("raced", model="m") as store:
            store.claim_lease(owner_id="a", ttl_ms=0)
            if not directory.path_of("raced").exists():
                orphans.append(store.path)
        time.sleep(0.002)
    say(orphans)


def hold_open(say: Says, root: Path) -> None:
    store = SessionDirectory(root).create("held", model="m")
    say(store.path)
    say.wait()


def test_the_asyncio_store_has_every_operation() -> None:
    def operations(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")} - {
            "open",
            "session_id",
            "collect_every",
        }

    assert operations(AsyncSessionStore) == operations(SessionStore)
    assert len(operations(SessionStore)) > 30


class TestCollectEvery:
    def test_s_commit_9_a_failing_collection_does_not_hide_the_receipt(self, path: Path) -> None:
        with SessionStore.open(path, session_id="s", collect_every=1) as store:
            first = commit(store, checkpoint=FULL)
            run_script(path, f"DELETE FROM blobs WHERE hash = '{first.checkpoint_ref}'")
            run_script(path, f"INSERT INTO blobs VALUES ('{first.checkpoint_ref}', x'c1')")
            turn = TurnCommit(fence=lease_of(store).fence, stamp=TurnStamp("t", "h"))
            with pytest.warns(CollectionWarning, match="the turn is committed"):
                receipt = store.commit_turn(turn)
            assert receipt.head_revision == 2
            assert store.commit_turn(turn) == receipt  # and it does not collect again

    @pytest.mark.sqlite("writes bytes as it spells them")
    @pytest.mark.filterwarnings("error")
    def test_s_commit_9_nor_do_warnings_that_are_errors(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with SessionStore.open(path, session_id="s", collect_every=1) as store:
            first = commit(store, checkpoint=FULL)
            run_script(path, f"DELETE FROM blobs WHERE hash = '{first.checkpoint_ref}'")
            run_script(path, f"INSERT INTO blobs VALUES ('{first.checkpoint_ref}', x'c1')")
            turn = TurnCommit(fence=lease_of(store).fence)
            assert store.commit_turn(turn).head_revision == 2
        assert "the turn is committed, but collecting blobs after it failed" in caplog.text

    def test_s_commit_9_a_receipt_does_not_repeat_the_checkpoints_state(
        self, store: SessionStore, path: Path
    ) -> None:
        """Its manifest is read from the checkpoint, as long as that is stored."""
        fence = lease_of(store).fence
        turn = TurnCommit(fence=fence, stamp=TurnStamp("t", "h"), checkpoint=FULL)
        receipt = store.commit_turn(turn)
        assert receipt.manifest is not None
        assert receipt.manifest.turn_state == FULL.turn_state
        (row,) = all_rows(path)["runtime_turn_commits"]
        assert row[3] == f'{{"head_revision":1,"checkpoint_ref":"{receipt.checkpoint_ref}"}}'
        assert store.commit_turn(turn) == store.load_receipt("t") == receipt
        store.commit_turn(TurnCommit(fence=fence, checkpoint=Checkpoint("newer")))
        assert store.collect_blobs().deleted
        left = msgspec.structs.replace(receipt, manifest=None)
        assert store.commit_turn(turn) == store.load_receipt("t") == left

    def test_s_commit_9_a_manifest_in_a_receipt_is_read_as_it_is(
        self, store: SessionStore, path: Path
    ) -> None:
        """As the original program writes it."""
        turn = TurnCommit(fence=lease_of(store).fence, stamp=TurnStamp("t", "h"), checkpoint=FULL)
        store.commit_turn(turn)
        written = '{"head_revision":1,"checkpoint_ref":"gone","manifest":{"turn_state":{"n":1}}}'
        run_script(path, f"UPDATE runtime_turn_commits SET result_json = '{written}'")
        expected = TurnReceipt(1, "gone", Manifest({"n": 1}))
        assert store.commit_turn(turn) == store.load_receipt("t") == expected

    @pytest.mark.parametrize("ref", ["", "a\\u0000b", "gone"])
    def test_s_commit_9_a_receipt_that_names_no_checkpoint_is_read_as_it_is(
        self, store: SessionStore, path: Path, ref: str
    ) -> None:
        turn = TurnCommit(fence=lease_of(store).fence, stamp=TurnStamp("t", "h"), checkpoint=FULL)
        store.commit_turn(turn)
        written = f'{{"head_revision":1,"checkpoint_ref":"{ref}"}}'
        run_script(path, f"UPDATE runtime_turn_commits SET result_json = '{written}'")
        expected = TurnReceipt(1, json.loads(f'"{ref}"'))
        assert store.commit_turn(turn) == store.load_receipt("t") == expected

    def test_s_commit_9_a_receipt_whose_checkpoint_is_corrupt_says_so(
        self, store: SessionStore, path: Path
    ) -> None:
        turn = TurnCommit(fence=lease_of(store).fence, stamp=TurnStamp("t", "h"), checkpoint=FULL)
        receipt = store.commit_turn(turn)
        other = store.put_blob(b"another content")
        run_script(
            path,
            f"UPDATE blobs SET content = (SELECT content FROM blobs WHERE hash = '{other}') "
            f"WHERE hash = '{receipt.checkpoint_ref}'",
        )
        before = all_rows(path)
        with pytest.raises(CorruptRecordError, match="blobs"):
            store.commit_turn(turn)
        with pytest.raises(CorruptRecordError, match="blobs"):
            store.load_receipt("t")
        assert all_rows(path) == before

    def test_s_gc_2_an_option_collects_after_every_nth_commit(self, path: Path) -> None:
        with SessionStore.open(path, session_id="s", collect_every=2) as store:
            kept = []
            for number in range(4):
                store.put_blob(b"alone %d" % number)
                commit(store, checkpoint=Checkpoint(turn_state=number))
                kept.append(len(all_rows(path)["blobs"]))
        assert kept == [2, 1, 3, 1]

    def test_s_gc_2_the_asyncio_store_collects_too(self, path: Path) -> None:
        async def main() -> None:
            async with AsyncSessionStore.open(path, session_id="s", collect_every=1) as store:
                lease = await store.claim_lease(owner_id="a", ttl_ms=60_000)
                await store.put_blob(b"alone")
                await store.commit_turn(TurnCommit(fence=lease.fence))  # type: ignore[union-attr] # reason: it is free

        asyncio.run(main())
        assert all_rows(path)["blobs"] == []

    @pytest.mark.parametrize("bad", [0, -1, True, "1"])
    def test_s_gc_2_a_bad_interval_is_refused(self, path: Path, bad: Any) -> None:
        for kind in (SessionStore, AsyncSessionStore):
            with pytest.raises(InvalidRecordError, match="collect_every"):
                kind.open(path, session_id="s", collect_every=bad)
        assert not path.exists()


@pytest.mark.canonical("the files of a folder")
def test_s_commit_7_check_reports_a_stale_count_and_mend_corrects_it(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        commit(store, Append([Node("a", None), Node("b", "a")], "b"))
    run_script(path, "UPDATE graph_nodes SET tombstoned = 1 WHERE node_id = 'a'")
    report = check_file(path)
    assert report.problems == ("the head's graph_node_count is 2, and there are 1 live nodes",)
    mend_file(path)
    assert check_file(path).is_sound


@pytest.mark.sqlite("checks a file")
def test_s_commit_6_check_names_nodes_that_two_commits_made_each_other_s_ancestors(
    path: Path,
) -> None:
    with SessionStore.open(path, session_id="s") as store:
        commit(store, Append([Node("a", "b"), Node("c", "a")], "c"))
        commit(store, Append([Node("r", None), Node("k", "r")], "k"))
        assert check_file(path).is_sound  # a parent may come later
        commit(store, Append([Node("b", "a")], "b"))
        with pytest.raises(CorruptRecordError, match="own ancestor"):
            store.load_path("c")
        whole = store.load_path("k")
        assert whole is not None
        assert [each.node_id for each in whole.nodes] == ["r", "k"]
    (problem,) = check_file(path).problems
    assert problem.endswith("is its own ancestor")
    run_script(path, "UPDATE graph_nodes SET node_json = '[' WHERE node_id = 'k'")
    (problem,) = check_file(path).problems
    assert problem.endswith("the node 'k' can't be read")


class Counted:
    """A cursor that counts what it ran and fetched."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self.statements = self.rows = 0
        self.scope = cast("Any", cursor).scope

    @property
    def driver(self) -> Any:
        return self._cursor.driver  # type: ignore[attr-defined] # reason: it is a store's

    @property
    def connection(self) -> sqlite3.Connection:
        return self._cursor.connection

    def execute(self, *arguments: Any) -> Counted:
        self.statements += 1
        self._cursor.execute(*arguments)
        return self

    def fetchall(self) -> list[Any]:
        rows = self._cursor.fetchall()
        self.rows += len(rows)
        return rows


def test_s_gc_3_fifty_thousand_nodes_are_not_loaded_for_a_path_or_a_summary(path: Path) -> None:
    """A path of 200 fetches 200 rows and the head, and looks for the absent parent of the first; the
    summary fetches one message and a count."""
    with SessionStore.open(path, session_id="s") as store:
        store.save_meta(SessionMeta("s", "s", "unix:0", "m"))
        commit(store)
        body = """{"node_id":"n%d","parent_node_id":"n%d","timestamp":"t","kind":"event",
            "event":{"Conversation":{"role":"User","parts":[]}}}"""
        rows = [(f"n{n}", body % (n, n - 1 if n <= 200 else 200)) for n in range(1, 50_001)]
        with store.begin() as tx:
            raw = tx.connection.connection.cursor()
            raw.executemany("INSERT INTO graph_nodes (node_id, node_json) VALUES (?, ?)", rows)
        with store.read() as tx:
            counted: Any = Counted(cast("sqlite3.Cursor", tx.own_cursor))
            tx._cursor = counted
            active = tx.load_path("n200")
            assert active is not None
            assert len(active.nodes) == 200
            assert (counted.statements, counted.rows) == (4, 201)  # two looks
            counted.statements = counted.rows = 0
            summary = tx.load_summary()
            assert summary is not None
            assert summary.user_messages == 50_000
            assert (counted.statements, counted.rows) == (3, 3)


def test_k_codec_2_one_undecodable_record_fails_a_listing(store: SessionStore, path: Path) -> None:
    for payload in "ab":
        store.enqueue_work(NewWork([payload]))
    run_script(path, "UPDATE queued_work_items SET payload_json = '{' WHERE payload_json = '\"b\"'")
    with pytest.raises(CorruptRecordError, match="queued_work_items"):
        store.list_work()


def test_k_codec_3_unknown_fields_survive_a_read_modify_write(
    store: SessionStore, path: Path
) -> None:
    commit(store, Append([Node("a", None)], "a"))
    run_script(path, "UPDATE session_head SET head_json = json_set(head_json, '$.new', 1e16)")
    store.tombstone_nodes(["a"])
    assert all_rows(path)["session_head"][0][2].endswith('"graph_node_count":0,"new":1e+16}')
