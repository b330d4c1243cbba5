from __future__ import annotations

import os
from pathlib import Path

import pytest

from probekit.machine import outside


def test_what_is_no_utf8_becomes_replacement_characters_however_it_came(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (name,) = outside.entries(tmp_path)
    assert outside.text(name.name) == outside.text(b"caf\xe9") == "caf�"
    outside.text(name.name).encode()  # no surrogate is left that no file could be written with


def test_a_file_is_read_whatever_its_bytes_are(tmp_path: Path) -> None:
    (tmp_path / "comm").write_bytes(b"a\xff\x1b[31m\n")
    assert outside.read(tmp_path / "comm") == "a�\x1b[31m\n"


def test_what_is_gone_or_dangling_costs_a_name_only(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert list(outside.entries(tmp_path / "nowhere")) == []
    assert outside.inode(tmp_path / "dangling") is None
    assert outside.link(tmp_path / "nowhere") == ""
    assert outside.link(tmp_path / "dangling").endswith("/nowhere")


def test_a_file_that_may_not_be_read_is_an_error_to_be_caught(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        outside.read(tmp_path / "nowhere")


def test_mount_points_are_the_bytes_that_they_are(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    names = [b"/sys/fs/cgroup", rb"/a\040b\011c\012d\134e", b"/caf\xe9", b"/#"]
    table.write_bytes(b"".join(b"none %s cgroup2 rw 0 0\n" % name for name in names) + b"x /x ext4 rw 0 0\n\nodd\n")
    found = [os.fsencode(path) for path in outside.mounts("cgroup2", table)]
    assert found == [b"/sys/fs/cgroup", b"/a b\tc\nd\\e", b"/caf\xe9", b"/#"]
    assert list(outside.mounts("cgroup2", tmp_path / "nowhere")) == []
