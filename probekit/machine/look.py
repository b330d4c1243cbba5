"""The machine as aggregators look at it: what it answers can be recorded, and given again anywhere.

What a probe wants to know depends on what the kernel's figures name: this cgroup, those sockets, that address. So it is
asked when figures are made, by functions that take and return plain values.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..errors import InputError

Answer = TypeVar("Answer")


class Machine:
    """The machine as it is now."""

    def ask(self, what: Callable[..., Answer], *arguments: Any) -> Answer:
        """What a function says of the machine.

        Args:
            what: A function of a module that returns plain values, as JSON has them: no tuples, and texts as keys.
            arguments: Its arguments, of which the texts tell one question from another.

        Raises:
            OSError: The function does; it is recorded, too.
        """
        return what(*arguments)


class RecordedMachine(Machine):
    """Keeps what the machine answers.

    Attributes:
        answers: Question, answer and number of the error, if there was one, in their order.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[str, Any, int]] = []

    def ask(self, what: Callable[..., Answer], *arguments: Any) -> Answer:
        """What a function says of the machine, kept.

        Raises:
            TypeError: It says what JSON has not.
        """
        question = _question(what, arguments)
        try:
            answer = what(*arguments)
        except OSError as error:
            self.answers.append((question, str(error.strerror), error.errno or 0))
            raise
        if json.loads(json.dumps(answer)) != answer:
            raise TypeError(f"{question} has an answer that cannot be recorded: it is no plain value, as JSON has them")
        self.answers.append((question, answer, 0))
        return answer


class ReplayedMachine(Machine):
    """Gives recorded answers again, and touches nothing.

    Args:
        answers: As `RecordedMachine` has them.
    """

    def __init__(self, answers: Iterable[tuple[str, Any, int]]) -> None:
        self._answers: dict[str, deque[tuple[Any, int]]] = {}
        for question, answer, number in answers:
            self._answers.setdefault(question, deque()).append((answer, number))

    def ask(self, what: Callable[..., Answer], *arguments: Any) -> Answer:
        """The next answer to this question.

        Raises:
            InputError: It was not asked so often.
            OSError: That was the answer.
        """
        question = _question(what, arguments)
        given = self._answers.get(question)
        if not given:
            raise InputError(f"the recording has no answer to {question}")
        answer, number = given.popleft()
        if number:
            raise OSError(number, answer)
        result: Answer = answer
        return result


def _question(what: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    said = ", ".join(json.dumps(argument, default=str) for argument in arguments)
    return f"{what.__module__}.{what.__qualname__}({said})"
