"""What belongs to another user is neither written to nor followed, unless that is asked for."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from probekit.errors import ExportError
from probekit.export import places
from probekit.export.csv import CsvConfig, CsvExporter
from probekit.export.json import JsonConfig, JsonExporter
from probekit.export.jsonl import JsonlConfig, JsonlExporter
from probekit.testing.contract import sample

OTHER = 12345

_FILES: dict[str, Any] = {
    "csv": lambda path, force=False: CsvExporter(CsvConfig(str(path), force)),
    "json": lambda path, force=False: JsonExporter(JsonConfig(str(path), force)),
    "jsonl": lambda path, force=False: JsonlExporter(JsonlConfig(str(path), force)),
}
_each_file = pytest.mark.parametrize("kind", _FILES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Such as /tmp: everybody may make files there, and nobody take away another's."""
    folder = tmp_path / "sticky"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def give(path: Path, user: int = OTHER) -> None:
    os.chown(path, user, user, follow_symlinks=False)


def export(kind: str, path: Path, force: bool = False) -> None:
    with _FILES[kind](path, force) as exporter:
        exporter.export(sample())


def refused(kind: str, path: Path, reason: str) -> None:
    """Before anything is measured, and also where it comes to be there later."""
    exporter = _FILES[kind](path)
    for call in (exporter.__enter__, lambda: exporter.export(sample())):
        with pytest.raises(ExportError, match=f"^{path}: {reason}") as caught:
            call()
        assert "force = true" in caught.value.hint


@_each_file
def test_a_file_of_another_user_is_left_alone_unless_asked_for(folder: Path, kind: str) -> None:
    path = folder / "out"
    path.write_text("theirs\n")
    give(path)
    refused(kind, path, f"belongs to user {OTHER}, and this is user 0")
    assert path.read_text() == "theirs\n"
    export(kind, path, force=True)
    assert path.read_text() != "theirs\n"
    assert path.read_text().startswith("theirs\n") == (kind == "jsonl")


@_each_file
def test_a_pipe_of_another_user_is_left_alone(folder: Path, kind: str) -> None:
    path = folder / "out"
    os.mkfifo(path)
    give(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        refused(kind, path, f"belongs to user {OTHER}")
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


@_each_file
@pytest.mark.parametrize("target", ["is there", "is not there"])
def test_a_link_of_another_user_is_not_followed_unless_asked_for(folder: Path, kind: str, target: str) -> None:
    mine, link = folder.parent / "mine", folder / "out"
    if target == "is there":
        mine.write_text("mine\n")
    link.symlink_to(mine)
    give(link)
    refused(kind, link, f"leads through the link out to {mine}; it belongs to user {OTHER}")
    assert mine.read_text() == "mine\n" if target == "is there" else not mine.exists()
    export(kind, link, force=True)
    assert '"probe"' in mine.read_text() or "events" in mine.read_text()
    assert link.is_symlink()


@_each_file
def test_a_link_of_another_user_among_the_folders_is_not_followed(folder: Path, kind: str) -> None:
    (folder / "way").symlink_to(folder.parent)
    give(folder / "way")
    refused(kind, folder / "way" / "out", f"leads through the link way to {folder.parent}; it belongs to user {OTHER}")
    assert not (folder.parent / "out").exists()


@_each_file
def test_an_own_link_in_a_folder_of_another_user_is_not_followed(folder: Path, kind: str) -> None:
    (folder / "out").symlink_to(folder.parent / "mine")
    give(folder)
    refused(kind, folder / "out", f"leads through the link out to .*; its folder belongs to user {OTHER}")


@_each_file
def test_an_own_link_is_followed_to_an_own_file_only(folder: Path, kind: str) -> None:
    target, link = folder / "target", folder / "link"
    link.symlink_to(target)
    export(kind, link)
    assert target.stat().st_uid == 0
    target.write_text("theirs")
    give(target)
    refused(kind, link, f"belongs to user {OTHER}")
    assert target.read_text() == "theirs"


@_each_file
def test_a_new_file_in_a_folder_of_another_user_is_made(folder: Path, kind: str) -> None:
    give(folder)
    export(kind, folder / "out")
    export(kind, folder / "out")
    status = (folder / "out").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_nothing_is_added_to_a_file_that_another_user_gave_a_second_name(folder: Path) -> None:
    mine = folder.parent / "mine"
    mine.write_text("mine")
    (folder / "out").hardlink_to(mine)
    give(folder)
    with _FILES["jsonl"](folder / "out") as exporter, pytest.raises(ExportError, match="has other names as well"):
        exporter.export(sample())
    assert mine.read_text() == "mine"


@_each_file
def test_a_file_that_another_user_puts_there_at_the_last_moment_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = folder / "out"
    look = places._look

    def late(descriptor: int, name: str) -> os.stat_result | None:
        status = look(descriptor, name)
        if name == "out" and not path.exists():
            path.write_text("theirs")
            give(path)
        return status

    with _FILES[kind](path) as exporter:
        monkeypatch.setattr(places, "_look", late)
        with pytest.raises(ExportError, match=f"belongs to user {OTHER}"):
            exporter.export(sample())
    assert path.read_text() == "theirs"
    assert [entry.name for entry in folder.iterdir()] == ["out"]


@_each_file
def test_a_file_that_becomes_a_link_at_the_last_moment_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, mine = folder / "out", folder.parent / "mine"
    path.write_text("")
    mine.write_text("mine")
    look = places._look

    def late(descriptor: int, name: str) -> os.stat_result | None:
        status = look(descriptor, name)
        if name == "out" and not path.is_symlink():
            path.unlink()
            path.symlink_to(mine)
        return status

    with _FILES[kind](path) as exporter:
        monkeypatch.setattr(places, "_look", late)
        if kind == "jsonl":
            with pytest.raises(ExportError):
                exporter.export(sample())
        else:
            exporter.export(sample())
            assert not path.is_symlink()
    assert mine.read_text() == "mine"


def test_a_file_that_another_user_puts_in_its_place_at_the_last_moment_is_not_added_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, theirs = folder / "out", folder / "theirs"
    path.write_text("")
    theirs.write_text("theirs")
    give(theirs)
    give(folder)
    look = places._look

    def late(descriptor: int, name: str) -> os.stat_result | None:
        status = look(descriptor, name)
        if name == "out" and theirs.exists():
            theirs.rename(path)
        return status

    with _FILES["jsonl"](path) as exporter:
        monkeypatch.setattr(places, "_look", late)
        with pytest.raises(ExportError, match="another file has taken its place"):
            exporter.export(sample())
    assert path.read_text() == "theirs"


def test_temporary_files_of_others_are_left_alone(folder: Path) -> None:
    theirs = folder / ".out.probekit-0"
    theirs.write_text("theirs")
    give(theirs)
    (folder / ".out.probekit-1").symlink_to(folder.parent / "mine")
    export("json", folder / "out")
    assert theirs.read_text() == "theirs"
    assert not (folder.parent / "mine").exists()
    assert (folder / "out").stat().st_uid == 0


def test_a_user_writes_to_own_files_only_and_trusts_links_of_root() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are root's alone
        folder = Path(name)
        folder.chmod(0o755)
        home, root = folder / "home", folder / "root"
        home.mkdir()
        give(home)
        root.write_text("root's")
        root.chmod(0o666)
        (folder / "way").symlink_to("home")
        script = USER.format(user=OTHER, own=str(folder / "way" / "out"), root=str(root))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{root}: belongs to user 0, and this is user {OTHER}\n"
        assert (home / "out").stat().st_uid == OTHER
        assert root.read_text() == "root's"


USER = """
import os
from probekit.errors import ExportError
from probekit.export import write
os.setgroups([])
os.setresgid({user}, {user}, {user})
os.setresuid({user}, {user}, {user})
write({own!r}, "text")
try:
    write({root!r}, "text")
except ExportError as error:
    print(error.message)
"""
