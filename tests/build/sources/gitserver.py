"""A git repository on loopback: by git's own daemon (git://) and by its CGI program (http://)."""

from __future__ import annotations

import base64
import http.server
import os
import socket
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENVIRONMENT = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "C",
    "GIT_COMMITTER_EMAIL": "c@example.org",
    "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
}


def git(directory: Path, *arguments: str) -> str:
    """What it prints, without the last line's end."""
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=ENVIRONMENT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class Origin:
    """`directory` is the working tree of a repository that is served as `name`.git."""

    def __init__(self, top: Path, name: str = "app") -> None:
        self.directory = top / name
        self.directory.mkdir()
        git(self.directory, "init", "-q", "-b", "main")
        (top / f"{name}.git").symlink_to(self.directory / ".git")

    def commit(self, message: str, **files: str) -> str:
        """Writes the files (`a__b` is a/b) and gives the commit."""
        for name, text in files.items():
            path = self.directory / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git(self.directory, "add", "-A")
        git(self.directory, "commit", "-q", "--allow-empty", "-m", message)
        return git(self.directory, "rev-parse", "HEAD")


@contextmanager
def daemon(top: Path) -> Iterator[str]:
    """git://127.0.0.1:PORT, of all repositories in a directory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            *("/usr/lib/git-core/git-daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}"),
            *("--informative-errors", "--verbose", "--log-destination=stderr", f"--base-path={top}", str(top)),
        ],
        env=ENVIRONMENT | {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if b"Ready to rumble" in line:
                break
        else:
            raise AssertionError("git daemon did not begin")
        # What it says later is of no interest, but must not fill the pipe.
        reader = threading.Thread(target=process.stderr.read)
        reader.start()
        yield f"git://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        reader.join()
        process.stderr.close()


@contextmanager
def http_server(top: Path, login: str = "") -> Iterator[tuple[str, list[str]]]:
    """(http://127.0.0.1:PORT, the Authorization of each request); with a login others are turned away."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            if self.headers.get("Transfer-Encoding", "") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self._answer(body)

        def _answer(self, body: bytes) -> None:
            given = self.headers.get("Authorization", "")
            seen.append(given)
            if login and given != f"Basic {base64.b64encode(login.encode()).decode()}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            environment = {
                **ENVIRONMENT,
                "GIT_PROJECT_ROOT": str(top),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True)
            head, _, rest = done.stdout.partition(b"\r\n\r\n")
            lines = [line.decode().partition(": ")[::2] for line in head.split(b"\r\n")]
            status = next((value for key, value in lines if key == "Status"), "200 OK")
            self.send_response(int(status.split()[0]))
            for key, value in lines:
                if key and key != "Status":
                    self.send_header(key, value)
            self.end_headers()
            self.wfile.write(rest)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
