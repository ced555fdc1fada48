"""A TCP proxy in front of a real server that can misbehave in every way that networks do."""

import socket
import threading
import time
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["pass", "busy", "cut", "stall", "gone"]
_BUSY_BODY = b"<Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>"
_BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BUSY_BODY), _BUSY_BODY)
)


class Proxy:
    """Passes connections on to the server at endpoint, as mode says at the moment.

    pass: unchanged. busy: every request is answered with 503. cut: answers break off in the middle.
    stall: nothing comes any more, and what stalled never goes on. gone: connections are closed.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self.target = (parts.hostname, parts.port)
        self.mode: Mode = "pass"
        self.num_spoilt = 0
        """Connections that were refused, cut, stalled or answered with 503."""
        self.refuse_next = 0
        """So many connections are closed at once, in any mode."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "gone" or self.refuse_next > 0:
                self.refuse_next = max(0, self.refuse_next - 1)
                self.num_spoilt += 1
                client.close()
                continue
            server = socket.create_connection(self.target)
            for source, sink, is_answer in ((client, server, False), (server, client, True)):
                arguments = (source, sink, is_answer)
                threading.Thread(target=self._relay, args=arguments, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self._spoil(data, source, sink, is_answer):
                    sink.sendall(data)
                    continue
                self.num_spoilt += 1
                break
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()

    def _spoil(
        self, data: bytes, source: socket.socket, sink: socket.socket, is_answer: bool
    ) -> bool:
        """Whether the connection ends here; what the mode sends before that is sent."""
        mode = self.mode
        if mode == "busy" and not is_answer:
            source.sendall(_BUSY)
        elif mode == "cut" and is_answer:
            sink.sendall(data[: len(data) // 2])
        elif mode == "stall":
            while self.mode == "stall":
                time.sleep(0.05)
        else:
            return mode == "gone"
        return True
