"""The cache: what it loads would run in the kernel, so it takes nothing that it did not write itself."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, cast

import attrs
import pytest

from probekit.compile import cache as cache_module
from probekit.compile import scratch
from probekit.compile.cache import Cache, decode, default_folder, encode
from probekit.errors import MissingError
from probekit.model import MapSpec, Object

_KEY = "0123456789abcdef"
_OBJECT = Object(
    key=_KEY,
    compiler="bcc 1",
    maps=(
        MapSpec(
            name="connections", type=2, key_size=4, value_size=24, max_entries=10, flags=1024, placeholder=-7,
            key="=u4",
            value={"names": ["a", "b"], "formats": ["=u8", ["=u1", [16]]], "offsets": [0, 8], "itemsize": 24},
        ),
        MapSpec("ring", 27, 0, 0, 4096, 0, -8, "=u4", "S16"),
    ),
    programs={"send_btf": struct.pack("=BBhiqq", 0x18, 0x11, 0, -7, 0, 0x95), "empty": b"\x95".ljust(8, b"\0")},
    targets={"function:tcp_sendmsg": 1234},
)  # fmt: skip
_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A prepared cache."""
    made = Cache(tmp_path / "cache")
    made.prepare()
    return made


def _file(cache: Cache) -> Path:
    (path,) = cache.folder.iterdir()
    return path


def test_an_object_comes_out_as_it_went_in() -> None:
    assert decode(encode(_OBJECT), _KEY) == _OBJECT


def test_a_stored_object_is_loaded_by_its_key(cache: Cache) -> None:
    assert cache.load(_KEY) is None
    cache.store(_OBJECT)
    assert cache.load(_KEY) == _OBJECT
    assert cache.load("another") is None


def test_the_folder_and_its_objects_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        cache = Cache(tmp_path / "cache")
        cache.prepare()
        cache.store(_OBJECT)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(_file(cache).stat().st_mode) == 0o600


def test_storing_leaves_the_object_and_nothing_else(cache: Cache) -> None:
    for _ in range(2):
        cache.store(_OBJECT)
    assert [path.name for path in cache.folder.iterdir()] == [f"{_KEY}.object"]
    assert cache.load(_KEY) == _OBJECT


@pytest.mark.parametrize("owner_and_name", [(os, "rename"), (cache_module, "encode")], ids=["renaming", "writing"])
def test_what_cannot_be_stored_leaves_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, owner_and_name: tuple[object, str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*owner_and_name, refuse)
    with pytest.raises(MissingError, match=r"cannot write to the cache folder .*: No space"):
        cache.store(_OBJECT)
    assert list(cache.folder.iterdir()) == []


def test_an_object_is_loaded_for_the_bcc_that_made_it_or_where_that_does_not_matter(cache: Cache) -> None:
    cache.store(_OBJECT)
    assert cache.load(_KEY, _OBJECT.compiler) == _OBJECT
    assert cache.load(_KEY, "another") is None
    assert cache.load(_KEY) == _OBJECT


def test_nothing_is_loaded_from_a_folder_that_others_may_write(cache: Cache) -> None:
    cache.store(_OBJECT)
    cache.folder.chmod(0o777)
    assert cache.load(_KEY) is None


def test_a_byte_changed_anywhere_is_noticed() -> None:
    content = encode(_OBJECT)
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1
        with pytest.raises(ValueError, match="damaged"):
            decode(bytes(damaged), _KEY)


def test_a_file_cut_short_anywhere_is_noticed() -> None:
    content = encode(_OBJECT)
    for size in range(len(content)):
        with pytest.raises(ValueError, match="damaged"):
            decode(content[:size], _KEY)


def test_an_object_of_another_key_is_not_taken(cache: Cache) -> None:
    with pytest.raises(ValueError, match="another key"):
        decode(encode(_OBJECT), "another")
    cache.store(_OBJECT)
    _file(cache).rename(cache.folder / "another.object")
    assert cache.load("another") is None


@pytest.mark.parametrize("content", [b"", b"\n", b"x", encode(_OBJECT)[:-1], encode(_OBJECT) + b" "])
def test_a_damaged_file_is_as_if_it_were_not_there(cache: Cache, content: bytes) -> None:
    cache.store(_OBJECT)
    _file(cache).write_bytes(content)
    assert cache.load(_KEY) is None
    cache.store(_OBJECT)
    assert cache.load(_KEY) == _OBJECT


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_loaded(cache: Cache, mode: int) -> None:
    cache.store(_OBJECT)
    _file(cache).chmod(mode)
    assert cache.load(_KEY) is None


@_root
def test_a_file_of_another_owner_is_not_loaded(cache: Cache) -> None:
    cache.store(_OBJECT)
    os.chown(_file(cache), 12345, -1)
    assert cache.load(_KEY) is None


def test_a_link_is_not_loaded(cache: Cache, tmp_path: Path) -> None:
    cache.store(_OBJECT)
    target = tmp_path / "elsewhere"
    _file(cache).rename(target)
    (cache.folder / f"{_KEY}.object").symlink_to(target)
    assert cache.load(_KEY) is None


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(MissingError, match=f"{tmp_path} can be written by others") as caught:
        Cache(tmp_path).prepare()
    assert "XDG_CACHE_HOME" in caught.value.hint


@_root
def test_a_folder_of_another_owner_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(MissingError, match=str(tmp_path)):
        Cache(tmp_path).prepare()


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with pytest.raises(MissingError, match=str(tmp_path / "link")):
        Cache(tmp_path / "link").prepare()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(MissingError, match=f"the cache folder {folder} cannot be made: "):
            Cache(folder).prepare()


def test_preparing_twice_keeps_what_is_there(cache: Cache) -> None:
    cache.store(_OBJECT)
    cache.prepare()
    assert cache.load(_KEY) == _OBJECT


def test_the_folder_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "probekit"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_folder() == tmp_path / ".cache" / "probekit"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_folder() == Path("/var/cache/probekit")


def _make(out: Path) -> None:
    (out / "include").mkdir()
    (out / "include" / "vmlinux.h").write_text("types")


def _never(out: Path) -> None:
    pytest.fail(f"{out} is made again")


def test_a_tree_is_made_once(cache: Cache) -> None:
    tree = cache.tree("one", _make)
    assert (tree / "include" / "vmlinux.h").read_text() == "types"
    assert cache.tree("one", _never) == tree
    assert cache.tree("two", _make) != tree
    assert len(list(cache.folder.iterdir())) == 2


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), MissingError("no bpftool"), KeyboardInterrupt()]
)
def test_a_tree_that_cannot_be_made_leaves_nothing(cache: Cache, error: BaseException) -> None:
    def fail(out: Path) -> None:
        _make(out)
        raise error

    with pytest.raises(type(error)):
        cache.tree("one", fail)
    assert list(cache.folder.iterdir()) == []
    assert (cache.tree("one", _make) / "include").is_dir()


def test_a_tree_that_another_process_made_meanwhile_is_used(cache: Cache) -> None:
    def slow(out: Path) -> None:
        _make(out)
        made.append(cache.tree("one", _make).stat().st_ino)

    made: list[int] = []
    assert [cache.tree("one", slow).stat().st_ino] == made
    assert [path.name for path in cache.folder.iterdir()] == ["headers-one"]
    assert cache.tree("one", _never).stat().st_ino == made[0]


def test_a_tree_that_others_may_write_is_not_used(cache: Cache) -> None:
    cache.tree("one", _make).chmod(0o777)
    used = []
    try:
        used.append(cache.tree("one", _make))
    except (OSError, MissingError):
        return
    assert stat.S_IMODE(used[0].stat().st_mode) == 0o700


def test_another_object_replaces_the_one_of_the_same_key(cache: Cache) -> None:
    cache.store(_OBJECT)
    changed = attrs.evolve(_OBJECT, targets={})
    cache.store(changed)
    assert cache.load(_KEY) == changed


def test_a_file_is_checked_as_it_was_opened_and_a_pipe_holds_nobody_up(cache: Cache) -> None:
    os.mkfifo(cache.folder / f"{_KEY}.object", 0o600)
    assert cache.load(_KEY) is None


@_root
@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777])
def test_a_cache_below_a_folder_of_another_user_is_refused(tmp_path: Path, mode: int) -> None:
    theirs = tmp_path / "theirs"
    cache = Cache(theirs / "deeper" / "cache")
    cache.prepare()
    cache.refuse_foreign_parents()
    os.chown(theirs, 12345, 12345)
    theirs.chmod(mode)
    with pytest.raises(MissingError, match=f"{theirs} belongs to user 12345") as caught:
        cache.refuse_foreign_parents()
    assert "XDG_CACHE_HOME" in caught.value.hint


@pytest.mark.parametrize("mode", [0o757, 0o777])
def test_a_cache_below_a_folder_that_others_may_write_is_refused_unless_it_is_sticky(tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    cache = Cache(shared / "cache")
    cache.prepare()
    with pytest.raises(MissingError, match=f"{shared} can be written by others"):
        cache.refuse_foreign_parents()
    shared.chmod(mode | stat.S_ISVTX)
    cache.refuse_foreign_parents()


def test_a_link_among_the_parents_is_followed_to_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "inner").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "open" / "inner")
    with pytest.raises(MissingError, match=f"{tmp_path / 'open'} can be written by others"):
        Cache(tmp_path / "link" / "cache").refuse_foreign_parents()


@pytest.mark.parametrize("harm", ["changed", "gone", "added", "empty"])
def test_a_damaged_tree_is_made_again(cache: Cache, harm: str) -> None:
    file = cache.tree("one", _make) / "include" / "vmlinux.h"
    if harm == "changed":
        file.write_text("typos")
    elif harm == "gone":
        file.unlink()
    elif harm == "added":
        file.with_name("other.h").touch()
    else:
        shutil.rmtree(file.parent)
    tree = cache.tree("one", _make)
    assert [path.name for path in (tree / "include").iterdir()] == ["vmlinux.h"]
    assert (tree / "include" / "vmlinux.h").read_text() == "types"
    assert [path.name for path in cache.folder.iterdir()] == ["headers-one"]
    cache.tree("one", _never)


def test_what_was_not_used_for_a_month_goes_and_what_was_stays(cache: Cache) -> None:
    old = time.time() - 31 * 86400
    for key in ("used", "unused"):
        cache.store(attrs.evolve(_OBJECT, key=key))
        cache.tree(key, _make)
    for path in cache.folder.iterdir():
        os.utime(path, (old, old))
    assert cache.load("used") is not None
    cache.tree("used", _never)
    cache.remove_unused()
    assert {path.name for path in cache.folder.iterdir()} == {"used.object", "headers-used"}


_LEAVES = """
import os, sys
from pathlib import Path
from probekit.compile import scratch
with scratch.folder(Path(sys.argv[1])) as folder:
    (folder / "types.h").write_text("half of them")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_and_what_a_live_one_uses_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LEAVES, str(tmp_path)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    names = [cast("IO[bytes]", process.stdout).readline().decode().strip() for process in both]
    strangers = tmp_path / "probekit-report"
    strangers.mkdir()
    both[0].kill()
    both[0].communicate()
    scratch.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {names[1], strangers.name}
    both[1].communicate()
    assert {path.name for path in tmp_path.iterdir()} == {strangers.name}


@_root
def test_what_another_user_left_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / scratch.fresh_name()
    path.mkdir()
    os.chown(path, 12345, 12345)
    scratch.sweep(tmp_path)
    assert path.exists()
