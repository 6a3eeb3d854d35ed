"""Answers of models in files, one each, as a person can read them (`joyvl_train.llm`)."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_text(path: Path | None) -> str | None:
    """The kept text; None where there is none. An unreadable entry counts as none."""
    if path is None:
        return None
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["text"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) else None


def write_entry(path: Path | None, entry: Mapping[str, Any]) -> str:
    """Keeps an answer with what was asked; nowhere where there is no path. The text that is kept:
    that of another process which had an answer to the same question first, if there is one."""
    text = str(entry["text"])
    if path is None:
        return text
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False
    ) as file:
        json.dump(entry, file, ensure_ascii=False, indent=1)
    try:
        os.link(file.name, path)
    except FileExistsError:
        first = read_text(path)
        if first is not None:
            os.unlink(file.name)
            return first
    except OSError:  # a file system without links
        pass
    else:
        os.unlink(file.name)
        return text
    os.replace(file.name, path)
    return text


def without_images(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request as a person reads it in the cache: each image as the hash of its data."""

    def short(part: Any) -> Any:
        if isinstance(part, Mapping) and part.get("type") == "image_url":
            digest = hashlib.sha256(json.dumps(part).encode()).hexdigest()[:16]
            return {"type": "image_url", "sha256": digest}
        return part

    messages = [
        {**m, "content": [short(p) for p in m["content"]]} if isinstance(m["content"], list) else m
        for m in request["messages"]
    ]
    return {**request, "messages": messages}
