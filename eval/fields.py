"""Reading plain data with errors that say where, what and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from joyvl_train.config import nearest


class CaseError(ValueError):
    """A case that can't be played; the message names the place, the value and the mend."""


class Fields:
    """A mapping of a case file, whose keys are taken one by one; `end` refuses what is left over.

    `where` is how messages call it: "fire.yaml, due[2]".
    """

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, Mapping):
            what = "nothing is there" if data is None else f"{_shown(data)} is no mapping"
            raise CaseError(f"{where}: {what}; give names with values")
        self._left = {str(name): value for name, value in data.items()}
        self._known: list[str] = []
        self.where = where

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, default: Any = ...) -> Any:
        """The value of `name`; `default` where it isn't given, an error where there is none."""
        self._known.append(name)
        if name in self._left:
            return self._left.pop(name)
        if default is ...:
            other = nearest(name, list(self._left))
            raise CaseError(f"{self.where}: {name} is missing; give it.{other}")
        return default

    def text(self, name: str, default: Any = ...) -> Any:
        value = self.take(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or not value.strip():
            raise CaseError(f"{self.where}: {name} is {_shown(value)}; it takes a text")
        return self._written(name, value.strip())

    def _written(self, name: str, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise CaseError(
                f"{self.where}: {name} is {ascii(value)[:60]}, half of a character; write it whole"
            ) from None
        return value

    def number(
        self, name: str, low: float, high: float, default: Any = ..., *, whole: bool = False
    ) -> Any:
        value = self.take(name, default)
        if value is default:
            return value
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            what = "a whole number" if whole else "a number"
            raise CaseError(
                f"{self.where}: {name} is {_shown(value)}; it takes {what} from {low:g} to {high:g}"
            )
        return value

    def choice(self, name: str, choices: Sequence[str], default: Any = ...) -> Any:
        value = self.take(name, default)
        if value is not default and value not in choices:
            hint = nearest(str(value), choices)
            raise CaseError(
                f"{self.where}: {name} is {_shown(value)}, none of {', '.join(choices)}.{hint}"
            )
        return value

    def flag(self, name: str) -> bool:
        value = self.take(name, False)
        if not isinstance(value, bool):
            raise CaseError(f"{self.where}: {name} is {_shown(value)}; it takes true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; none where it isn't given."""
        value = self.take(name, [])
        if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
            raise CaseError(f"{self.where}: {name} is {_shown(value)}; it takes a list of texts")
        return tuple(self._written(name, v.strip()) for v in value)

    def each(self, name: str) -> Iterator[Fields]:
        """The mappings of a list; nothing where it isn't given."""
        value = self.take(name, [])
        if not isinstance(value, list):
            raise CaseError(f"{self.where}: {name} is {_shown(value)}; it takes a list")
        for index, item in enumerate(value):
            yield Fields(item, f"{self.where}, {name}[{index}]")

    def end(self) -> None:
        """Raises `CaseError` for what was given and is not known."""
        for name in self._left:
            raise CaseError(
                f"{self.where}: {name} is not known; known are {', '.join(self._known)}."
                f"{nearest(name, self._known)}"
            )


def _shown(value: Any) -> str:
    try:
        told = repr(value)
    except ValueError:  # Python writes out no number of more than 4300 digits
        return "a number of thousands of digits"
    return told if len(told) <= 60 else f"{told[:59]}…"
