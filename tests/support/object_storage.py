"""An S3 server on loopback whose connections can break."""

import http.client
import itertools
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Storage:
    """An S3 server on loopback behind a proxy that can break connections.

    Attributes:
        url: What AWS_ENDPOINT_URL is set to.
        every: Each request whose number is a multiple of it is cut off, half answered or not at all; 0: none.
        n_requests: How many there were.
        n_broken: How many were cut off.
    """

    def __init__(self, host: str, port: int) -> None:
        self.every = self.n_broken = self.n_requests = 0
        numbers = itertools.count(1)
        storage = self

        class Proxy(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                storage.n_requests += 1
                upstream = http.client.HTTPConnection(host, port, timeout=20)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                broken = bool(storage.every) and next(numbers) % storage.every == 0
                if broken:
                    storage.n_broken += 1
                    self.close_connection = True
                    if storage.n_broken % 2:
                        return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else len(content)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[: len(content) // 2] if broken else content)

            do_GET = do_HEAD = do_PUT = do_POST = pass_on  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


URL_TEXT = "s3://data/faces"


URL = Path(URL_TEXT)
