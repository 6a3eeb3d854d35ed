"""A real HTTP server in a thread of its own that draws as it is told to, in the form of vLLM."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Script = Callable[[str, dict[str, Any] | None], Any]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is what some tests are about, and no fault of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Endpoint:
    """`script(path, body)` says what comes back: an object, or (status, text). `seen` holds the
    requests as (path, body)."""

    def __init__(self, script: Script) -> None:
        self.seen: list[tuple[str, Any]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(length) or "null")
                endpoint.seen.append((self.path, body))
                told = script(self.path, body)
                status, text = told if isinstance(told, tuple) else (200, json.dumps(told))
                self.send_response(status)
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def drawn(prompt: list[int], *choices: list[int]) -> dict[str, Any]:
    """A completion of these tokens, each with the log-probability -0.5."""
    return {
        "prompt_token_ids": prompt,
        "choices": [
            {
                "index": number,
                "token_ids": ids,
                "logprobs": {"content": [{"logprob": -0.5} for _ in ids]},
            }
            for number, ids in enumerate(choices)
        ],
    }
