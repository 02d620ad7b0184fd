"""A local web server that can fail in many ways."""

import http.server
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

Handler = http.server.BaseHTTPRequestHandler


@dataclass
class Server:
    """Responses of a server by path, and the number of requests for each."""

    address: str
    answers: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str) -> str:
        return f"{self.address}/{path}"

    def serve(
        self,
        path: str,
        body: bytes,
        *,
        length: int | str | None = None,
        failures: int = 0,
        pause_s: float = 0,
        together: int = 1,
        encoding: str = "",
    ) -> str:
        """Serves a body.

        Options: announces another length (none for 0), fails the first requests, pauses between chunks, or delays
        the first response until several clients have sent a request.
        """
        barrier = threading.Barrier(together, timeout=30)

        def answer(handler: Handler) -> None:
            barrier.wait()
            if self.asked[path] <= failures:
                handler.send_error(503)
                return
            handler.send_response(200)
            if length != 0:
                handler.send_header("Content-Length", str(len(body) if length is None else length))
            if encoding:
                handler.send_header("Content-Encoding", encoding)
            # This name must be ignored.
            handler.send_header("Content-Disposition", 'attachment; filename="../../trust_me.txt"')
            handler.end_headers()
            for start in range(0, len(body), 1 << 12):
                handler.wfile.write(body[start : start + (1 << 12)])
                if pause_s and self.stopping.wait(pause_s):
                    return

        self.answers[path] = answer
        return self.url(path)

    def stall(self, path: str) -> str:
        """Accepts the request and never responds."""

        def answer(handler: Handler) -> None:
            del handler
            self.stopping.wait(30)

        self.answers[path] = answer
        return self.url(path)

    def redirect(self, path: str, to: str) -> str:
        def answer(handler: Handler) -> None:
            handler.send_response(302)
            handler.send_header("Location", to)
            handler.end_headers()

        self.answers[path] = answer
        return self.url(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")

    class Answering(Handler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            state.asked[path] += 1
            if path not in state.answers:
                self.send_error(404)
                return
            try:
                state.answers[path](self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client disconnected

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as httpd:
        state = Server(f"http://127.0.0.1:{httpd.server_port}")
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        state.stopping.set()
        httpd.shutdown()
        thread.join()
