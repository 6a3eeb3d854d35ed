"""Stands in for the Python of vLLM's environment: a process that is asked for /health alone.

    fake = fake_vllm(folder, "answers once")

`loads`: never answers. `answers once`: ends after its first answer. `ends`: ends at once.
Whatever it does, its process id is added to `folder/pids` first.
"""

from __future__ import annotations

import sys
from pathlib import Path

_TEXT = """#!{python}
import http.server, os, sys, time
with open({pids!r}, "a") as file:
    print(os.getpid(), file=file)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
does = {does!r}
if does == "loads":
    time.sleep(600)
elif does == "answers once":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Health).handle_request()
print("out of memory")
"""


def fake_vllm(folder: Path, does: str) -> Path:
    script = folder / "python"
    script.write_text(_TEXT.format(python=sys.executable, pids=str(folder / "pids"), does=does))
    script.chmod(0o755)
    return script


def pids(folder: Path) -> list[int]:
    """Of all that were started, in order."""
    told = folder / "pids"
    return [int(line) for line in told.read_text().split()] if told.exists() else []


def lives(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().split()[2] != "Z"
