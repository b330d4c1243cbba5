"""Kernels, QEMU and files of other machines from Debian's archive, unpacked into a cache folder; nothing is installed.

Versions come from the metapackages. QEMU comes from backports because bookworm's 7.2 crashes under newer kernels; what
it links to is bookworm's, which `./dev` installs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from attrs import frozen

KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = ("bullseye-security", "bookworm-security", "bookworm-backports", "trixie-backports")
QEMU = ("qemu-system-common", "qemu-system-data", "seabios")
QEMU_SUITE = "bookworm-backports"


@frozen
class Kernel:
    """An unpacked kernel.

    Attributes:
        release: As its `uname -r` says.
        image: The file to boot.
        modules: Its folder of modules, with modules.dep.
    """

    release: str
    image: Path
    modules: Path


class Archive:
    """Debian's archive, through an apt configuration of its own: the machine's stays as it is.

    Args:
        folder: Where apt keeps its state.
        architecture: Whose packages.
    """

    def __init__(self, folder: Path, architecture: str = "amd64") -> None:
        self.architecture = architecture
        for name in ("state/lists/partial", "cache/archives/partial", "empty"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "state/status").touch()
        main, security = _mirrors()
        lines = [
            f"deb [signed-by={KEYS}] {security if suite.endswith('security') else main} {suite} main"
            for suite in (*SUITES, "bookworm")
        ]
        (folder / "sources.list").write_text("\n".join(lines) + "\n")
        (folder / "apt.conf").write_text(
            f'Dir::State "{folder}/state"; Dir::State::status "{folder}/state/status"; Dir::Cache "{folder}/cache";\n'
            f'Dir::Etc::sourcelist "{folder}/sources.list"; Dir::Etc::sourceparts "{folder}/empty";\n'
            f'Dir::Etc::preferencesparts "{folder}/empty"; Acquire::Languages "none"; APT::Sandbox::User "root";\n'
            'Acquire::Check-Valid-Until "false"; Acquire::Retries "3";\n'
            f'APT::Architecture "{architecture}"; APT::Architectures "{architecture}";\n'
        )
        self._environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf")}
        self._run("apt-get", "update", "-qq")

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(command, env=self._environment, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def version(self, package: str, suite: str) -> str:
        """The newest version of a package in a suite."""
        rows = [line.split("|") for line in self._run("apt-cache", "madison", package).splitlines()]
        return next(row[1].strip() for row in rows if f" {suite}/main" in row[2])

    def first_dependency(self, package: str, version: str) -> str:
        """The package that a metapackage stands for."""
        shown = self._run("apt-cache", "show", f"{package}={version}")
        found = re.search(r"^Depends: ([^ ,]+)", shown, re.MULTILINE)
        assert found, f"{package} depends on nothing"
        return found[1]

    def unpack(self, packages: Iterable[str], into: Path, more: Callable[[Path], None] = lambda _: None) -> None:
        """Downloads packages and unpacks them; the folder is there whole or not at all.

        Args:
            packages: Names, with version or suite if need be.
            into: The folder.
            more: What else is done to it while it is made.
        """
        making = into.with_name(into.name + ".making")
        shutil.rmtree(making, ignore_errors=True)
        (making / "debs").mkdir(parents=True)
        self._run("apt-get", "download", "-qq", *packages, cwd=making / "debs")
        more(making)
        for deb in sorted((making / "debs").glob("*.deb")):
            unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], capture_output=True, check=True).stdout
            # a folder that is a link already, such as /lib, stays one
            command = ["tar", "--extract", "--keep-directory-symlink", "--directory", str(making)]
            subprocess.run(command, input=unpacked, check=True)
        shutil.rmtree(making / "debs")
        making.rename(into)

    def with_dependencies(self, packages: Iterable[str]) -> list[str]:
        """These packages and all that they need, on a machine that has nothing."""
        command = ("apt-get", "install", "--simulate", "--no-install-recommends", "-qq", *packages)
        return re.findall(r"^Inst (\S+)", self._run(*command), re.MULTILINE)


def _mirrors() -> tuple[str, str]:
    """The mirrors that this machine's apt uses: the main one and the one for security."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    used = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    main = next((uri for uri in used if uri.rstrip("/").endswith("/debian")), None)
    if main is None:
        raise RuntimeError("the kernels come from Debian's archive: this needs a Debian machine")
    security = next((uri for uri in used if uri.rstrip("/").endswith("-security")), main.rstrip("/") + "-security/")
    return main, security


def kernels(folder: Path) -> list[Kernel]:
    """The newest kernel of each suite, fetched where it is not there yet."""
    archive = Archive(folder / "apt")
    return [kernel(archive, suite, folder) for suite in SUITES]


def kernel(archive: Archive, suite: str, folder: Path) -> Kernel:
    """The newest kernel of a suite for the archive's architecture."""
    package = f"linux-image-{archive.architecture}"
    version = archive.version(package, suite)
    image = archive.first_dependency(package, version)
    if image.startswith("linux-base"):  # from 7 on it is split in two
        release = archive.first_dependency(f"linux-base-{archive.architecture}", version).removeprefix("linux-base-")
        packages = [f"linux-binary-{release}", f"linux-modules-{release}"]
    else:
        release = image.removeprefix("linux-image-")
        packages = [image]
    root = folder / f"{release}_{version.replace(':', '.')}"
    if not root.exists():
        archive.unpack(packages, root)
    base = root / "usr" if (root / "usr/lib/modules").exists() else root
    modules = base / "lib/modules" / release
    if not (modules / "modules.dep").exists():
        subprocess.run(["depmod", "--basedir", str(base), release], check=True, capture_output=True)
    image_file = root / "boot" / f"vmlinuz-{release}"
    return Kernel(release, image_file if image_file.exists() else modules / "vmlinuz", modules)


def qemu(folder: Path, machine: str) -> Path:
    """The root of an unpacked QEMU.

    Args:
        folder: The cache.
        machine: Whose, as Debian's packages name it: x86, arm.
    """
    archive = Archive(folder / "apt")
    package = f"qemu-system-{machine}"
    version = archive.version(package, QEMU_SUITE)
    root = folder / f"{package}_{version.replace(':', '.')}"
    if not root.exists():
        archive.unpack([f"{name}/{QEMU_SUITE}" for name in (package, *QEMU)], root)
    return root
