"""The store under attack: kills, full disks, readers at any moment, cut and flipped files lose and falsify nothing."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from store_samples import (
    CELLS,
    CONFIG,
    KEYS,
    TESTBED,
    contents,
    fill,
    make_chunks,
    make_images,
    make_round,
    message,
    names,
    read_contents,
    times_of,
)
from store_writer import nth_chunk, nth_round

from tomebench.errors import RunError, StorageError
from tomebench.runs import checksums
from tomebench.runs.store import Store
from tomebench.schema import SENTINEL

# --- kills


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    writer = [sys.executable, str(Path(__file__).with_name("store_writer.py")), str(folder)]
    random_ = random.Random(0)
    for session in range(1, 6):
        with subprocess.Popen(writer, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for _ in range(random_.randrange(1, 60)):
                process.stdout.readline()
            process.kill()
            acknowledged = {"round": 0, "chunk": 0}
            for line in process.stdout:  # what it said before it died
                kind, number = line.split()
                acknowledged[kind] = int(number)
        with Store.open(folder, CONFIG) as store:
            rounds, chunks = store.rounds(), store.done_chunks()
            assert acknowledged["round"] <= len(rounds)
            assert acknowledged["chunk"] <= len(chunks)
            assert len(chunks) <= len(rounds) <= len(chunks) + session
            assert rounds == [nth_round(i, round_.session) for i, round_ in enumerate(rounds)]
            assert chunks == set(range(len(chunks)))
            found = store.predictions()
            expected = [nth_chunk(i).predictions for i in range(len(chunks))]
            for key in KEYS:
                assert found[key].top1.tolist() == [x for p in expected for x in p[key].top1.tolist()]
                assert found[key].in_top5.tolist() == [x for p in expected for x in p[key].in_top5.tolist()]
                assert found[key].ties == sum(p[key].ties for p in expected)
            assert len(store.sessions()) == session
    assert len(chunks) > 20


# --- disk


def test_little_free_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=63 * 2**20))
    with pytest.raises(StorageError) as error:
        Store.open(tmp_path / "run", CONFIG)
    assert "has 63 MiB left; free at least 64 MiB" in message(error)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20))
    Store.open(tmp_path / "run", CONFIG).close()


def test_a_full_disk_loses_nothing_that_was_committed(folder: Path) -> None:
    with Store.open(folder, CONFIG) as store:
        before = contents(store)
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's way to a disk that is full
        added = 0

        def add_many() -> None:
            nonlocal added
            for added in range(1000):
                store.add_round(make_round(times_of(CELLS, 1.0, 1.0, 1.0), added))

        with pytest.raises(StorageError) as error:
            add_many()
        assert "the disk is full; free some space" in message(error)
        assert len(store.rounds()) == len(before["rounds"]) + added
        with pytest.raises(StorageError, match="disk is full"):
            store.put("large", "x" * 10**5)
        store._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
        store.add_round(make_round({SENTINEL: 1.0}, 1000))
    after = read_contents(folder)
    assert len(after["rounds"]) == len(before["rounds"]) + added + 1
    assert {k: v for k, v in after.items() if k != "rounds"} == {k: v for k, v in before.items() if k != "rounds"}


def test_an_interrupted_commit_leaves_nothing(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.put_cells(CELLS)
    insert, calls = checksums.insert, 0

    def stop_at_third(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return insert(*args)

    (chunk,) = make_chunks(make_images(4), {key: set() for key in KEYS})
    with monkeypatch.context() as patch:
        patch.setattr(checksums, "insert", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            opened.add_chunk(chunk)
    assert opened.done_chunks() == set()
    assert opened.predictions() == {}
    opened.add_chunk(chunk)
    assert opened.done_chunks() == {0}


# --- readers


def test_reading_while_another_connection_writes(folder: Path) -> None:
    with Store.open(folder, CONFIG) as writer, Store.read(folder) as reader:
        before = contents(reader)
        writer.add_round(make_round({SENTINEL: 1.0}, 99))
        writer.set_peak_memory(KEYS[1], 5)
        assert contents(reader) == before  # one moment of the run, not a mixture of two
        assert read_contents(folder) == contents(writer) != before
    assert names(folder) == ["run.sqlite"]


def test_a_reader_is_not_in_the_way_of_a_new_writer(tmp_path: Path) -> None:
    Store.open(tmp_path / "run", CONFIG).close()  # nothing but made yet
    with Store.read(tmp_path / "run") as reader, Store.open(tmp_path / "run", CONFIG) as writer:
        fill(writer)
        assert reader.cells() == []
        assert len(writer.rounds()) == 8


def test_reading_changes_nothing(folder: Path) -> None:
    before = (folder / "run.sqlite").read_bytes()
    with Store.read(folder) as store:
        contents(store)
        with pytest.raises(ValueError, match="cannot be written"):
            store.put("x", 1)
    assert (folder / "run.sqlite").read_bytes() == before
    assert names(folder) == ["run.sqlite"]


def test_reading_where_nothing_can_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_contents(folder)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert read_contents(folder) == expected
    (folder / "run.sqlite-wal").write_bytes(b"the rest of a killed run")
    with pytest.raises(StorageError) as error:
        Store.read(folder)
    assert "copy the folder and use the copy" in message(error)


# --- damage


def test_a_newer_store_is_refused_untouched(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "run.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 3")
    before = (folder / "run.sqlite").read_bytes()
    for call in (lambda: Store.open(folder, CONFIG), lambda: Store.read(folder)):
        with pytest.raises(RunError) as error:
            call()
        assert "newer tomebench (store version 3, this one knows 2); update tomebench" in message(error)
    assert (folder / "run.sqlite").read_bytes() == before


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(RunError) as error:
        Store.open(tmp_path, CONFIG)
    assert "is not a run of tomebench" in message(error)


@pytest.mark.parametrize(
    "content", [b"", b"hello", bytes(5000), b"<html>" * 1000], ids=["empty", "text", "zeros", "html"]
)
def test_something_else_in_place_of_the_store(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.sqlite").write_bytes(content)
    for call in (lambda: Store.open(tmp_path, CONFIG), lambda: Store.read(tmp_path)):
        with pytest.raises(StorageError) as error:
            call()
        assert f"{tmp_path / 'run.sqlite'} is damaged" in message(error)
    assert (tmp_path / "run.sqlite").read_bytes() == content


def test_a_truncated_store_is_never_read(folder: Path) -> None:
    path = folder / "run.sqlite"
    whole = path.read_bytes()
    for size in sorted({*(len(whole) * tenth // 10 for tenth in range(10)), 1, 99, 600, 4096, len(whole) - 1}):
        path.write_bytes(whole[:size])
        for call in (lambda: read_contents(folder), lambda: Store.open(folder, CONFIG)):
            with pytest.raises(StorageError) as error:
                call()
            assert str(path) in message(error)
    path.write_bytes(whole)
    read_contents(folder)


def test_flipped_bits_never_change_a_result(folder: Path) -> None:
    path = folder / "run.sqlite"
    whole, expected = path.read_bytes(), read_contents(folder)
    random_ = random.Random(0)
    caught = []
    for _ in range(400):
        flipped = bytearray(whole)
        flipped[random_.randrange(len(whole))] ^= 1 << random_.randrange(8)
        path.write_bytes(flipped)
        try:
            assert read_contents(folder) == expected  # the bit was in unused space
        except (StorageError, RunError) as error:
            caught.append(str(error))
    assert len(caught) > 40
    assert not any("\n" in text for text in caught)


def test_a_foreign_journal_is_refused_and_removes_nothing(folder: Path, tmp_path: Path) -> None:
    """SQLite would remove the file that such a journal names when it plays it back."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    name = str(victim).encode()
    journal = bytes.fromhex("d9d505f920a163d7") + (1).to_bytes(4, "big") + bytes(16) + (512).to_bytes(4, "big")
    pointer = bytes(4) + name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + journal[:8]
    (folder / "run.sqlite-journal").write_bytes(journal.ljust(512, b"\0") + pointer)
    for use in (lambda: Store.read(folder), lambda: Store.open(folder, CONFIG)):
        with pytest.raises(RunError, match=r"run\.sqlite-journal is not of this run"):
            use()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["run.sqlite", "run.sqlite-wal", "run.sqlite-shm"])
def test_links_in_a_run_folder_are_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    if (folder / name).exists():
        (folder / name).rename(target)
    else:
        target.write_bytes(bytes(4096))
    before = target.read_bytes()
    (folder / name).symlink_to(target)
    for use in (lambda: Store.read(folder), lambda: Store.open(folder, CONFIG)):
        with pytest.raises(RunError, match=f"{name} is a link or no file"):
            use()
    assert target.read_bytes() == before


def moments(folder: Path) -> list[tuple[bytes, bytes, dict[str, Any]]]:
    """File, log and content of a store after each of some commits and checkpoints."""
    found = []

    def note() -> None:
        main, log = ((folder / f"run.sqlite{end}").read_bytes() for end in ("", "-wal"))
        found.append((main, log, contents(store)))

    with Store.open(folder, CONFIG) as store:
        note()
        store.put_cells(CELLS)
        note()
        store.begin_session(TESTBED)
        for step in range(24):
            note()
            store.add_round(make_round(times_of(CELLS, 1.0, 0.5 + step / 99, 0.25), step))
            note()
            store.put("batch_size", step + 1)
            if step % 7 == 5:
                store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return found


def laid(at: Path, main: bytes, log: bytes) -> Path:
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir()
    (at / "run.sqlite").write_bytes(main)
    (at / "run.sqlite-wal").write_bytes(log)
    return at


def test_a_file_and_a_log_of_two_moments_are_consistent_or_refused(tmp_path: Path) -> None:
    one = moments(tmp_path / "one")
    states, refused = [state for _, _, state in one], 0
    for main, _, _ in one[::5]:
        for _, log, _ in one[::3]:
            try:
                found = read_contents(laid(tmp_path / "mixed", main, log))
            except StorageError:
                refused += 1
                continue
            assert found in states
    assert refused > 10


def test_the_log_of_another_run_is_refused(tmp_path: Path) -> None:
    one, other = moments(tmp_path / "one"), moments(tmp_path / "other")
    for main, own, _ in one[::5]:
        for _, log, _ in other[::4]:
            if log in (b"", own):
                continue
            with pytest.raises(StorageError, match="is damaged"):
                read_contents(laid(tmp_path / "mixed", main, log))
    main, own, state = one[-1]
    assert read_contents(laid(tmp_path / "mixed", main, own)) == state


@pytest.mark.parametrize("what", ["file", "folder", "replaced"])
def test_a_store_that_is_taken_away_ends_the_run(opened: Store, tmp_path: Path, what: str) -> None:
    opened.put("batch_size", 4)
    if what == "folder":
        shutil.rmtree(tmp_path / "run")
    else:
        (tmp_path / "run" / "run.sqlite").unlink()
    if what == "replaced":
        (tmp_path / "run" / "run.sqlite").touch()
    for use in (opened.check_there, lambda: opened.put("batch_size", 5)):
        with pytest.raises(StorageError, match="was removed or replaced while it was written to"):
            use()
