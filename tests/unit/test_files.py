"""Files, pipes and descriptors that exporters write to: whole records, never for ever, and usable after a failure."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import resource
import signal
import stat
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probekit import Column, Events, Figures, Snapshot, Table
from probekit.errors import ExportError
from probekit.export import files, streams
from probekit.export.csv import CsvConfig, CsvExporter
from probekit.export.json import JsonConfig, JsonExporter
from probekit.export.jsonl import JsonlConfig, JsonlExporter
from probekit.export.stdout import StdoutConfig, StdoutExporter

_FILES: dict[str, Any] = {
    "csv": lambda path: CsvExporter(CsvConfig(str(path))),
    "json": lambda path: JsonExporter(JsonConfig(str(path))),
    "jsonl": lambda path: JsonlExporter(JsonlConfig(str(path))),
}
_each_file = pytest.mark.parametrize("kind", _FILES)


def _snapshot(final: bool = True) -> Snapshot:
    main = Table("main", (Column("n", np.array([1])),), np.array(["a"]))
    return Snapshot("wiggle", 0.0, 1.0, final, "6.1.0", (), Figures({}, (main,)))


def _events(count: int, first: int = 0) -> Events:
    numbers = np.arange(first, first + count)
    columns = (Column("number", numbers), Column("text", np.array(["x" * 90] * count)))
    return Events("wiggle", Table("events", columns, numbers))


def _numbers(text: str) -> list[int]:
    """Of the events, all of which have to be whole."""
    lines = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    return [line["number"] for line in lines if line["record"] == "event"]


def _send(exporter: Any, count: int, final: bool = True, first: int = 0) -> None:
    """Events, to whom takes some, and a snapshot."""
    if hasattr(exporter, "stream"):
        exporter.stream(_events(count, first))
    exporter.export(_snapshot(final))


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE_SECONDS", 0.1)


@contextlib.contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@contextlib.contextmanager
def _reader(pipe: Path) -> Iterator[int]:
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> str:
    """What is in a pipe now."""
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    return b"".join(parts).decode()


def _fill(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"\0" * 4096)


@_each_file
def test_a_pipe_that_nobody_reads_is_an_error_until_somebody_does(pipe: Path, kind: str) -> None:
    with _FILES[kind](pipe) as exporter:
        with pytest.raises(ExportError, match=f"^{pipe}: nobody reads this pipe"):
            exporter.export(_snapshot())
        with _reader(pipe) as reader:
            exporter.export(_snapshot())
            assert _read(reader).endswith("\n")
        with pytest.raises(ExportError, match=r"nobody reads this pipe|Broken pipe"):
            exporter.export(_snapshot())
        with pytest.raises(ExportError, match="nobody reads this pipe"):
            exporter.export(_snapshot())
        with _reader(pipe) as reader:
            exporter.export(_snapshot())
            assert _read(reader).endswith("\n")


@pytest.mark.usefixtures("_impatient")
@_each_file
def test_a_reader_that_stops_reading_is_not_waited_for(pipe: Path, kind: str) -> None:
    with _reader(pipe) as reader, _FILES[kind](pipe) as exporter:
        writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        _fill(writer)
        with pytest.raises(ExportError, match=f"^{pipe}: nobody has read from it for 0.1 s"):
            exporter.export(_snapshot())
        _read(reader)
        exporter.export(_snapshot())
        os.close(writer)
        assert _read(reader).endswith("\n")


@pytest.mark.usefixtures("_impatient")
def test_a_record_that_a_pipe_took_in_part_is_ended_before_the_next(pipe: Path) -> None:
    with _reader(pipe) as reader, _FILES["jsonl"](pipe) as exporter:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        with pytest.raises(ExportError, match=r"; (\d+) of 100 records were not written$") as caught:
            exporter.stream(_events(100))
        begun = _read(reader)
        assert not begun.endswith("\n")
        missing = int(caught.value.message.rpartition("; ")[2].split()[0])
        assert begun.count("\n") == 100 - missing
        exporter.stream(_events(2, first=1000))
        whole = begun + _read(reader)
    assert _numbers(whole) == [*range(101 - missing), 1000, 1001]


def test_a_slow_reader_gets_everything(pipe: Path) -> None:
    text = "x" * 300_000
    with subprocess.Popen([sys.executable, "-c", _SLOW, str(pipe)], stdout=subprocess.PIPE) as slow:
        descriptor = os.open(pipe, os.O_WRONLY)  # waits for the reader
        files.write(str(pipe), text)
        os.close(descriptor)
        assert slow.communicate()[0] == b"300000"


_SLOW = """
import sys, time
total = 0
with open(sys.argv[1], "rb", buffering=0) as file:
    while part := file.read(30_000):
        total += len(part)
        time.sleep(0.01)
print(total, end="")
"""


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize("by", ["its path", "standard output"])
def test_a_terminal_that_shows_nothing_more_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, by: str, stopped: bool
) -> None:
    master, terminal = pty.openpty()
    try:
        if stopped:
            termios.tcflow(terminal, termios.TCOOFF)  # Ctrl-S
        with os.fdopen(terminal, "w", closefd=False) as out:
            monkeypatch.setattr(sys, "stdout", out)
            path = os.ttyname(terminal) if by == "its path" else "-"
            with pytest.raises(ExportError, match="nobody has read from it"):
                files.write(path, "x" * 1_000_000)
            termios.tcflow(terminal, termios.TCOON)
            os.set_blocking(master, False)
            _read(master)
            files.write(path, "shown")
        os.set_blocking(master, True)
        assert os.read(master, 1 << 16).endswith(b"shown")
        assert os.get_blocking(terminal)
    finally:
        os.close(master)
        os.close(terminal)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("kind", [*_FILES, "stdout"])
def test_a_reader_of_standard_output_that_stops_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    _fill(writer)
    os.set_blocking(writer, True)
    try:
        with os.fdopen(writer, "w") as out:
            monkeypatch.setattr(sys, "stdout", out)
            exporter = _FILES[kind]("-") if kind in _FILES else StdoutExporter(StdoutConfig())
            with exporter:
                with pytest.raises(ExportError, match=r"^standard output: nobody has read from it for 0\.1 s"):
                    _send(exporter, 3)
                _read(reader)
                _send(exporter, 3)
                assert _read(reader).endswith("\n")
    finally:
        os.close(reader)


@pytest.mark.parametrize("kind", [*_FILES, "stdout"])
def test_a_broken_pipe_is_known_by_its_cause(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        exporter = _FILES[kind]("-") if kind in _FILES else StdoutExporter(StdoutConfig())
        with exporter, pytest.raises(ExportError) as caught:
            exporter.export(_snapshot())
    assert isinstance(caught.value.__cause__, BrokenPipeError)


def test_what_is_not_written_to_standard_output_is_in_no_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(ExportError):
            files.write("-", "text")
        out.flush()


@pytest.mark.parametrize("output", ["path", "standard output"])
def test_lines_on_a_full_disk_end_with_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    path = tmp_path / "out"
    path.write_text('{"record": "before"}\n')
    with path.open("a") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with _FILES["jsonl"](path if output == "path" else "-") as exporter:
            _send(exporter, 3, final=False)
            with _file_size_limit(2000), pytest.raises(ExportError, match=r"; (\d+) of 100 records") as caught:
                _send(exporter, 100, first=3, final=False)
            missing = int(caught.value.message.rpartition("; ")[2].split()[0])
            full = path.read_text()
            assert full.endswith("\n")
            assert _numbers(full) == list(range(3 + 100 - missing))
            assert caught.value.__cause__.errno == errno.EFBIG  # type: ignore[union-attr]
            _send(exporter, 2, first=1000)
    assert _numbers(path.read_text()) == [*range(3 + 100 - missing), 1000, 1001]


def test_lines_begin_afresh_behind_one_that_a_killed_process_left(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text('{"record": "event", "numb')
    with _FILES["jsonl"](path) as exporter:
        _send(exporter, 1)
    torn, *whole = path.read_text().splitlines()
    assert torn == '{"record": "event", "numb'
    assert _numbers("\n".join(whole)) == [0]


def test_what_somebody_else_adds_to_a_file_is_not_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    write = os.write

    def other_first(descriptor: int, data: Any) -> int:
        done = write(descriptor, data[:10])
        with path.open("ab") as file:
            file.write(b"theirs\n")
        monkeypatch.setattr(os, "write", full)
        return done

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", other_first)
    with _FILES["jsonl"](path) as exporter:
        with pytest.raises(ExportError, match=f"^{path}: No space left on device; 1 of 1 records were not written$"):
            _send(exporter, 1)
        monkeypatch.setattr(os, "write", write)
        _send(exporter, 1)
    torn, *whole = path.read_text().splitlines()
    assert torn.endswith("theirs")
    assert _numbers("\n".join(whole)) == [0]


def test_lines_go_on_in_a_new_file_where_the_old_one_is_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with _FILES["jsonl"](path) as exporter:
        _send(exporter, 1, final=False)
        path.rename(tmp_path / "old")
        _send(exporter, 1, first=1)
    assert _numbers((tmp_path / "old").read_text()) == [0]
    assert _numbers(path.read_text()) == [1]


@_each_file
def test_an_exporter_is_usable_again_after_a_failure(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "folder" / "out"
    path.parent.mkdir()
    with _FILES[kind](path) as exporter:
        exporter.export(_snapshot(final=False))
        path.unlink()
        path.parent.rmdir()
        with pytest.raises(ExportError, match=f"^{path}: the folder {path.parent} does not exist"):
            exporter.export(_snapshot(final=False))
        path.parent.mkdir()
        exporter.export(_snapshot())
    assert path.read_text().endswith("\n")


def test_standard_output_that_is_a_file_on_a_full_disk_has_no_part_of_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    with path.open("w") as out, _file_size_limit(100):
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(ExportError, match=r"^standard output: File too large$"):
            files.write("-", "x" * 1000)
    assert path.read_text() == ""


@pytest.mark.parametrize("path", ["/dev/fd/{}", "/proc/self/fd/{}", "link to /dev/fd/{}"])
@_each_file
def test_a_descriptor_is_written_to_where_it_stands_and_stays_open(tmp_path: Path, kind: str, path: str) -> None:
    with (tmp_path / "out").open("w") as out:
        out.write("before\n")
        out.flush()
        path = path.format(out.fileno())
        if path.startswith("link to "):
            (tmp_path / "link").symlink_to(path.removeprefix("link to "))
            path = str(tmp_path / "link")
        with _FILES[kind](path) as exporter:
            exporter.export(_snapshot(final=False))
            exporter.export(_snapshot())
        out.write("after\n")
    text = (tmp_path / "out").read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    if kind == "json":  # the last one only: two would be no JSON
        assert json.loads(text.removeprefix("before\n").removesuffix("after\n"))["probe"] == "wiggle"


def test_a_descriptor_that_is_not_open_is_an_error() -> None:
    with pytest.raises(ExportError, match=r"^/dev/fd/9999: is closed$"):
        files.write("/dev/fd/9999", "text")


def test_a_standard_output_that_is_closed_is_not_what_has_its_number_now(tmp_path: Path) -> None:
    script = f"""
import os
from probekit.export import prepare
os.dup2(os.open({str(tmp_path / "other")!r}, os.O_WRONLY | os.O_CREAT), 1)  # newer libffi have taken it already
prepare("/dev/stdout")
"""
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", script]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.stderr.endswith("/dev/stdout: is closed\n"), done.stderr


def test_the_null_device_takes_everything() -> None:
    for make in _FILES.values():
        with make("/dev/null") as exporter:
            _send(exporter, 3)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path)])
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.")
    files.write(str(path), "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


_KILLED = """
import os, signal, sys
from probekit.export import write
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write(sys.argv[1], "half")
"""


def test_writers_at_one_time_all_write_and_leave_nothing(tmp_path: Path) -> None:
    path, begin = tmp_path / "out", threading.Barrier(8)
    failures: list[BaseException] = []

    def write(text: str) -> None:
        try:
            begin.wait()
            for _ in range(5):
                files.write(str(path), text)
                path.unlink(missing_ok=True)
            files.write(str(path), text)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(f"{number}" * 1000,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_text() in {f"{number}" * 1000 for number in range(8)}
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_two_exporters_in_threads_of_their_own_do_not_mix_on_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    taken: list[bytes] = []

    def read() -> None:
        while part := os.read(reader, 1 << 16):
            taken.append(part)

    reading = threading.Thread(target=read)
    reading.start()
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        texts = ["a" * 200_000 + "\n", "b" * 200_000 + "\n"]
        writing = [threading.Thread(target=files.write, args=("-", text)) for text in texts]
        for thread in writing:
            thread.start()
        for thread in writing:
            thread.join()
    reading.join()
    os.close(reader)
    assert sorted(b"".join(taken).decode().splitlines(keepends=True)) == texts


@_each_file
@pytest.mark.parametrize("name", ["\x1b[2Jx", "x\udcff", "x\u202e"])
def test_a_path_is_harmless_in_a_message(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(ExportError) as caught:
        _FILES[kind](tmp_path / name / "out").__enter__()
    assert caught.value.message.isprintable()


def test_a_path_with_a_zero_is_no_path() -> None:
    assert not files.check_template("a\0b")


def test_a_path_of_bytes_that_are_no_text_is_written_to(tmp_path: Path) -> None:
    files.write(f"{tmp_path}/\udcff", "text")
    assert [os.fsencode(entry.name) for entry in tmp_path.iterdir()] == [b"\xff"]


def test_links_that_lead_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ExportError, match="Too many levels of symbolic links"):
        files.write(str(tmp_path / "a"), "text")


@pytest.mark.parametrize("link", ["../folder/target", "{}/folder/target", "../other/target"])
def test_links_to_and_through_folders_are_followed(tmp_path: Path, link: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "other").symlink_to("folder")
    (tmp_path / "links" / "link").symlink_to(link.format(tmp_path))
    files.write(str(tmp_path / "links" / "link"), "text")
    assert (tmp_path / "folder" / "target").read_text() == "text"
