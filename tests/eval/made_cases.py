"""A small case, as text that tests change."""

from __future__ import annotations

from pathlib import Path

from eval.case import Case, read_case

FIRE = """\
scenario: monitoring
about: Smoke comes first; only fire is asked for.
stream:
  seconds: 40
  background: {texture: bricks}
  things:
    - {thing: smoke, from: 8, to: 20}
    - {thing: fire, from: 24, to: 36}
user:
  - {at: 2, says: Tell me every time a fire appears.}
due:
  - {at: 24, says: A fire appeared., facts: [fire|flames], until: 36, seen: fire came}
quiet:
  - {from: 3, to: 24}
"""


def made(folder: Path, text: str = FIRE, name: str = "fire") -> Case:
    """The case of this text, as a file of `folder`."""
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return read_case(path)


def changed(old: str, new: str) -> str:
    """The text of the case with one piece of it changed."""
    assert FIRE.count(old) == 1, old
    return FIRE.replace(old, new)
