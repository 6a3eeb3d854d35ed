"""Videos of cases that are named by URL, brought once and kept by their hash."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from eval.case import Case
from eval.fields import CaseError
from eval.suite import video_path

MOST_BYTES = 4 << 30
_CHUNK = 1 << 20
_SECONDS = 60.0  # without a byte


def fetch(cases: Sequence[Case], say: Callable[[str], None], most: int = MOST_BYTES) -> int:
    """Brings what is missing; how many videos came. Raises `CaseError` where one can't be had, is
    too large, or is not what its hash says."""
    count = 0
    for case in cases:
        if case.video is None or "://" not in case.video.path or video_path(case).is_file():
            continue
        say(f"{case.path.name}: fetching {case.video.path}")
        _bring(case, video_path(case), most)
        count += 1
    return count


def _bring(case: Case, path: Path, most: int) -> None:
    assert case.video is not None
    url, where = case.video.path, case.path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    digest, size = hashlib.sha256(), 0
    try:
        with _opener().open(url, timeout=_SECONDS) as body, part.open("wb") as kept:
            while chunk := body.read(_CHUNK):
                size += len(chunk)
                if size > most:
                    raise CaseError(f"{where}: {url} is larger than {most} bytes; name another")
                digest.update(chunk)
                kept.write(chunk)
        if digest.hexdigest() != case.video.sha256:
            raise CaseError(f"{where}: {url} is another file than its sha256 says; see to both")
        part.replace(path)
    except CaseError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise CaseError(f"{where}: {url} can't be fetched ({error}); see to the address") from None
    finally:
        part.unlink(missing_ok=True)


class _WebAlone(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"redirected to {newurl!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Speaks HTTP alone: no files, no other protocols."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _WebAlone(),
    ):
        opener.add_handler(handler)
    return opener
