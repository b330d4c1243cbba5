"""Virtual environments with packages that are installed from built wheels, as their users have them.

They see what this environment has, so that nothing is downloaded; the packages under test are in theirs alone.
"""

from __future__ import annotations

import functools
import site
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import frozen

THIRD_PARTY = Path(__file__).parents[1] / "third_party"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
BUILD = ["--no-deps", "--no-build-isolation", "--no-index"]
Done = subprocess.CompletedProcess[str]


@frozen
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def probekit(self, *arguments: str, cwd: Path | None = None) -> Done:
        command = [self.python, "-m", "probekit", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=cwd)

    def module(self, *arguments: str, cwd: Path) -> Done:
        return subprocess.run([self.python, "-m", *arguments], capture_output=True, text=True, timeout=250, cwd=cwd)

    def install(self, *packages: Path) -> None:
        """Installs packages: wheels, or folders of which one is built."""
        run([*PIP, "--python", self.python, "install", *BUILD, *map(str, packages)])


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def make(folder: Path) -> Environment:
    """An environment that also has what this one has."""
    command = ["/usr/bin/python3", "-m", "venv", "--system-site-packages", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    environment = Environment(folder)
    (packages,) = folder.glob("lib/python3*/site-packages")
    ours = next(path for path in site.getsitepackages() if path.startswith(sys.prefix))
    (packages / "development.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return environment


class Environments:
    """Environments by the third-party packages that are in them, each made once, as is each package's wheel."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wheel = functools.cache(self._built)
        self.of = functools.cache(self._of)

    def _of(self, *names: str) -> Environment:
        environment = make(self._folder / "-".join(names))
        environment.install(*map(self._wheel, names))
        return environment

    def _built(self, name: str) -> Path:
        into = self._folder / f"wheel-{name}"
        run([*PIP, "wheel", *BUILD, "--wheel-dir", str(into), str(THIRD_PARTY / f"probekit-{name}")])
        (wheel,) = into.glob("*.whl")
        return wheel


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    return Environments(tmp_path_factory.mktemp("environments"))
