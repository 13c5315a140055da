"""A chat completions server on loopback whose answers a test scripts, by the purpose that a request has."""

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def purpose_of(asked):
    shape = asked.get("response_format") or {}
    if shape.get("type") == "json_schema":
        return shape["json_schema"]["name"]
    text = asked["messages"][1]["content"]
    if "Write the pytest file" in text:
        return "tests"
    return "fix_tests" if "# Tests at fault" in text else "code"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.headers, asked))
        self.server.answer(self, asked)

    def say(self, content, *, finish="stop", usage=True):
        body = {
            "id": "x", "object": "chat.completion", "created": 1, "model": "scripted",
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}],
        }  # fmt: skip
        if usage:
            body["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        self.send(200, body)

    def drop(self):
        """Break the connection off."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that went away is what some tests are about."""


@contextmanager
def serving(answer):
    """Serve; ``answer(handler, asked)`` says or sends. Yields the base URL and what was asked so far."""
    server = Server(("127.0.0.1", 0), Handler)
    server.asked, server.answer = [], answer
    thread = threading.Thread(
        target=server.serve_forever, args=(0.02,), daemon=True
    )  # seconds between looks at whether to stop
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", server.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def scripted(answers):
    """Return an answerer from purpose to texts; the last one repeats."""
    left = {purpose: list(texts) for purpose, texts in answers.items()}

    def answer(handler, asked):
        texts = left[purpose_of(asked)]
        handler.say(texts.pop(0) if len(texts) > 1 else texts[0])

    return answer
