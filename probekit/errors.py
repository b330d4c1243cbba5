"""Every error a user can meet, with its exit code.

    ProbekitError
    ├── InputError          2   what the user wrote: TOML, arguments, names
    │   ├── ConfigError         one or more places in the configuration, all found at once
    │   └── PluginError         a plugin that cannot be loaded or breaks the contract
    ├── MachineError        3   the kernel or the machine
    │   ├── MissingError        a package, a tool or a permission
    │   ├── CompileError        bcc refuses the C source
    │   ├── LoadError           the kernel refuses a map or a program
    │   └── AttachError         no way of attaching works here
    │       └── VerifierError       among others because the verifier refuses a program
    └── ExportError         4   an exporter failed; the others finished

Only `probekit.cli` prints them; only it catches them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Refusal


class ProbekitError(Exception):
    """Base of all errors that are shown without a traceback.

    Args:
        message: What is wrong, in one sentence.
        hint: What the user can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(ProbekitError):
    """The user's input is at fault."""

    exit_code = 2


class ConfigError(InputError):
    """Places in the configuration that cannot be used.

    Args:
        problems: One line each: the TOML path, the value, what is allowed.
        origin: The file, or where else the configuration came from.
        hint: What the user can do about one of them.
    """

    def __init__(self, problems: list[str], origin: str = "", hint: str = "") -> None:
        head = f"{origin}: " if origin else ""
        super().__init__("\n".join(head + problem for problem in problems), hint)
        self.problems = problems


class PluginError(InputError):
    """A plugin that cannot be loaded or does not keep the contract."""


class MachineError(ProbekitError):
    """The kernel or the machine is at fault."""

    exit_code = 3


class MissingError(MachineError):
    """A package, a tool or a permission is missing."""


class CompileError(MachineError):
    """bcc refuses the C source."""


class LoadError(MachineError):
    """The kernel refuses a map or a program."""


class AttachError(MachineError):
    """No way of attaching a program works on this kernel.

    Args:
        message: What is wrong.
        hint: What the user can do about it.
        refused: A `probekit.model.Refusal` for each way.
    """

    def __init__(self, message: str, hint: str = "", refused: Sequence[Refusal] = ()) -> None:
        super().__init__(message, hint)
        self.refused = tuple(refused)


class VerifierError(AttachError):
    """No way of attaching works, and the verifier refuses at least one program."""


class ExportError(ProbekitError):
    """An exporter failed."""

    exit_code = 4
