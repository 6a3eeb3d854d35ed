"""An endpoint in a process of its own that is killed at set moments, and begun again or left dead.

    with Mortal(deaths=[3, 9]) as server:    # killed at its 3rd request, then at the 9th after that
        ...

What it answers hangs on the question alone, so that a question asked anew gets the same answer.
"""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

TOKENS = 15
"""What each answer says that it used."""


class Mortal:
    """url: where it answers, dead or alive; pauses: seconds that it is dead, in turn, or None: for
    good; served: the requests that all its lives have seen; deaths: how often its moment came."""

    def __init__(self, deaths: Sequence[int] = (), pauses: Sequence[float | None] = (0.0,)) -> None:
        self._moments, self._pauses = list(deaths), list(pauses)
        self.served = self.deaths = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._over = False

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self.kill()
        self._thread.join(20)

    def begin(self) -> None:
        """Starts it, and sees to its deaths."""
        self._start()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Kills it; it stays dead until it is begun again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def wait_for(self, requests: int, seconds: float = 60.0) -> bool:
        """Waits until so many requests more were seen; False where they don't come."""
        goal, end = self.served + requests, time.monotonic() + seconds
        while self.served < goal and time.monotonic() < end:
            time.sleep(0.005)
        return self.served >= goal

    def _start(self) -> None:
        command = [sys.executable, "-E", "-S", __file__, str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"

    def _live(self) -> None:
        """Counts requests, and kills the server where its moment has come."""
        while True:
            left = self._moments.pop(0) if self._moments else None
            assert self._process is not None and self._process.stdout is not None
            seen = 0
            for _ in self._process.stdout:
                self.served += 1
                seen += 1
                if seen == left:
                    self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            if left is None or seen < left or self._over:
                return
            self.deaths += 1
            pause = self._pauses[self.deaths % len(self._pauses)]
            if pause is None:
                return
            time.sleep(pause)
            self._start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print("asked", flush=True)
        time.sleep(0.01)
        luck = hashlib.sha256(body).digest()[0] % 8
        verdict = "no" if luck == 0 else "unsure" if luck == 1 else "yes"
        text = json.dumps({"reason": f"{luck} of 8", "verdict": verdict})
        usage = {"prompt_tokens": TOKENS - 5, "completion_tokens": 5}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        answer = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


if __name__ == "__main__":
    serving = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler)
    print("up", flush=True)
    serving.serve_forever()
