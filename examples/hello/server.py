"""Answers every GET with a greeting and the name of the container."""

import http.server
import os
import socket


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"Hello from {socket.gethostname()}, process {os.getpid()}.\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


port = int(os.environ.get("PORT", "8080"))
print(f"listening on port {port}", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Hello).serve_forever()
