"""Batch endpoints of both providers on loopback, written from their public references.

A batch ends when it is asked for the ``slow``-th time. ``refuse`` says for an item what comes in place of an answer.
"""

import json
import re
import threading
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.servers import Handler, Server


class BatchServer:
    """What the server holds: files, batches, and how many answers it made of each call, which it bills."""

    def __init__(self, body, *, slow=1, refuse=lambda purpose, batch: None, drop_made=0, per_page=100):
        self.body, self.slow, self.refuse = body, slow, refuse
        self.drop_made, self.per_page = drop_made, per_page
        self.files, self.batches, self.answered, self.asked = {}, {}, [], []
        self.lock = threading.RLock()

    # ---- what both have

    def made(self, requests, **more):
        with self.lock:
            name = f"batch_{len(self.batches) + 1}"
            self.batches[name] = {"requests": requests, "polls": 0, "results": None, **more}
            return name

    def polled(self, name):
        """Look at a batch; it ends when it was looked at often enough."""
        batch = self.batches[name]
        batch["polls"] += 1
        if batch["results"] is None and batch["polls"] >= self.slow:
            batch["results"] = {}
            for custom_id, asked in batch["requests"]:
                instead = self.refuse(asked, name)
                if instead is None:
                    self.answered.append(asked)
                batch["results"][custom_id] = instead or self.body(asked)
        return batch

    def newest(self, query):
        """A page of names, newest first, and whether there are more."""
        names = [*self.batches][::-1]
        after = re.search(r"after(?:_id)?=(\w+)", query)
        begin = names.index(after[1]) + 1 if after else 0
        return names[begin : begin + self.per_page], len(names) > begin + self.per_page


class OpenAIHandler(Handler):
    """/files and /batches of OpenAI."""

    def shown(self, name, batch):
        ended = batch["results"] is not None
        failed = batch.get("failed")
        lines, errors = [], []
        for custom_id, outcome in (batch["results"] or {}).items():
            if isinstance(outcome, str):  # an error of the batch itself
                errors.append(
                    {"custom_id": custom_id, "response": None, "error": {"code": outcome, "message": outcome}}
                )
            elif isinstance(outcome, tuple):
                response = {"status_code": outcome[0], "body": outcome[1]}
                errors.append({"custom_id": custom_id, "response": response, "error": None})
            else:
                response = {"status_code": 200, "request_id": "r", "body": outcome}
                lines.append({"custom_id": custom_id, "response": response, "error": None})
        for kind, found in (("out", lines), ("err", errors)):
            self.server.held.files[f"{kind}_{name}"] = "".join(json.dumps(line) + "\n" for line in found).encode()
        expired = any(e["error"] and e["error"]["code"] == "batch_expired" for e in errors)
        status = "failed" if failed else ("expired" if expired else "completed") if ended else "in_progress"
        return {
            "id": name, "object": "batch", "status": status, "metadata": batch["metadata"],
            "created_at": batch["created"], "errors": {"data": [{"message": failed}]} if failed else None,
            "output_file_id": f"out_{name}" if ended and lines else None,
            "error_file_id": f"err_{name}" if ended and errors else None,
            "request_counts": {"total": len(batch["requests"]), "completed": len(lines), "failed": len(errors)},
        }  # fmt: skip

    def do_POST(self):  # noqa: N802 - the name that http.server calls
        held, data = self.server.held, self.rfile.read(int(self.headers["Content-Length"]))
        held.asked.append((self.path, data))
        with held.lock:
            if self.path == "/v1/files":
                content = data.split(b"application/jsonl\r\n\r\n", 1)[1].split(b"\r\n--")[0]
                assert b'name="purpose"\r\n\r\nbatch' in data
                held.files[name := f"file_{len(held.files)}"] = content
                self.send(200, {"id": name, "object": "file", "purpose": "batch"})
            elif self.path == "/v1/batches":
                asked = json.loads(data)
                lines = [json.loads(line) for line in held.files[asked["input_file_id"]].splitlines()]
                assert {line["url"] for line in lines} == {asked["endpoint"]}
                created = int(datetime.now(UTC).timestamp())
                requests = [(line["custom_id"], line["body"]) for line in lines]
                name = held.made(requests, metadata=asked["metadata"], created=created)
                if held.drop_made > 0:
                    held.drop_made -= 1
                    self.drop()
                    return
                self.send(200, self.shown(name, held.batches[name]))

    def do_GET(self):  # noqa: N802 - the name that http.server calls
        held, path, query = self.server.held, *(self.path + "?").split("?")[:2]
        with held.lock:
            if path == "/v1/batches":
                names, more = held.newest(query)
                listed = [self.shown(name, held.batches[name]) for name in names]
                self.send(200, {"object": "list", "data": listed, "has_more": more})
            elif match := re.fullmatch(r"/v1/batches/(\w+)", path):
                if match[1] not in held.batches:
                    self.send(404, {"error": {"message": f"No such batch: {match[1]}"}})
                    return
                self.send(200, self.shown(match[1], held.polled(match[1])))
            elif match := re.fullmatch(r"/v1/files/(\w+)/content", path):
                self.send(200, held.files[match[1]])


class AnthropicHandler(Handler):
    """/v1/messages/batches of Anthropic."""

    def shown(self, name, batch):
        ended, total = batch["results"] is not None, len(batch["requests"])
        return {
            "id": name, "type": "message_batch", "created_at": batch["created"],
            "processing_status": "ended" if ended else "in_progress",
            "results_url": "http://example.invalid/elsewhere" if ended else None,
            "request_counts": {"processing": 0 if ended else total, "succeeded": total if ended else 0, "errored": 0},
        }  # fmt: skip

    def do_POST(self):  # noqa: N802 - the name that http.server calls
        held, data = self.server.held, self.rfile.read(int(self.headers["Content-Length"]))
        held.asked.append((self.path, data))
        with held.lock:
            requests = [(one["custom_id"], one["params"]) for one in json.loads(data)["requests"]]
            assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", custom_id) for custom_id, _ in requests)
            name = held.made(requests, created=datetime.now(UTC).isoformat().replace("+00:00", "Z"))
            if held.drop_made > 0:
                held.drop_made -= 1
                self.drop()
                return
            self.send(200, self.shown(name, held.batches[name]))

    def do_GET(self):  # noqa: N802 - the name that http.server calls
        held, path, query = self.server.held, *(self.path + "?").split("?")[:2]
        with held.lock:
            if path == "/v1/messages/batches":
                names, more = held.newest(query)
                for name in names:
                    held.polled(name)
                listed = [self.shown(name, held.batches[name]) for name in names]
                self.send(200, {"data": listed, "has_more": more})
            elif match := re.fullmatch(r"/v1/messages/batches/(\w+)", path):
                self.send(200, self.shown(match[1], held.polled(match[1])))
            elif match := re.fullmatch(r"/v1/messages/batches/(\w+)/results", path):
                lines = [
                    {"custom_id": custom_id, "result": self.result(outcome)}
                    for custom_id, outcome in held.batches[match[1]]["results"].items()
                ]
                self.send(200, "".join(json.dumps(line) + "\n" for line in lines).encode())

    @staticmethod
    def result(outcome):
        if outcome == "batch_expired":
            return {"type": "expired"}
        if isinstance(outcome, tuple):
            return {"type": "errored", "error": {"type": "error", "error": outcome[1]["error"]}}
        return {"type": "succeeded", "message": outcome}


@contextmanager
def batching(handler, body, **options):
    """Serve; yield the address without a path, and what the server holds."""
    server = Server(("127.0.0.1", 0), handler)
    server.held = BatchServer(body, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
