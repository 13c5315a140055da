"""A reply while it is read: a server that drips, never ends or packs a bomb is given up in time, in little memory; no key goes astray."""

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from codetape.errors import ModelUnavailable
from codetape_adapters.models import presets
from codetape_adapters.models.openai_compatible import OpenAIModel
from tests.contract.test_openai_faults import a_request
from tests.servers import serving

ROOT = Path(__file__).parents[2]
CHILD = """
import asyncio, json, re, sys, time
from pathlib import Path
from codetape.errors import ModelUnavailable
from codetape_adapters.models.openai_compatible import OpenAIModel
from tests.contract.test_openai_faults import a_request
import openai
begun = time.monotonic()
try:
    said = asyncio.run(OpenAIModel("x", base_url=sys.argv[1], read_seconds=float(sys.argv[2])).ask(a_request())).text
except ModelUnavailable as error:
    said = str(error)
print(json.dumps({"said": said, "s": time.monotonic() - begun, "mb": int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10}))
"""
WHOLE = json.dumps(
    {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a word"}}]}
).encode()  # fmt: skip


def begin(handler, *headers, length=None):
    handler.send_response(200)
    for name, value in (("Content-Type", "application/json"), *headers):
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(length or 1 << 40))
    handler.end_headers()
    handler.close_connection = True


def write(handler, parts, pause=0.0):
    for part in parts:
        try:
            handler.wfile.write(part)
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(pause)


def drip(handler, asked):
    begin(handler)
    write(handler, (b" " for _ in range(600)), pause=0.1)


def endless(handler, asked):
    begin(handler)
    write(handler, (b" " * 65536 for _ in range(100_000)))


def packed(layers, encoding):
    """Return a server of a gigabyte of blanks, packed once or twice."""
    packer, blanks = zlib.compressobj(wbits=16 + zlib.MAX_WBITS), b" " * (1 << 20)
    body = b"".join([*(packer.compress(blanks) for _ in range(1 << 10)), packer.flush()])
    for _ in range(layers - 1):
        body = gzip.compress(body)

    def answer(handler, asked):
        begin(handler, ("Content-Encoding", encoding), length=len(body))
        write(handler, [body])

    return answer


def headers_only(handler, asked):
    begin(handler)
    time.sleep(20)


BAD = {
    "drips": (drip, "not whole in the time"),
    "says nothing after its headers": (headers_only, "not whole in the time"),
    "never ends": (endless, "larger than 16 MB"),
    "a bomb": (packed(1, "gzip"), "larger than 16 MB"),
    "a bomb in a bomb": (packed(2, "gzip, gzip"), "cannot be bounded"),
    "an encoding that has no bound": (packed(1, "br"), "cannot be bounded"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_reply_without_an_end_is_given_up_in_time_and_in_little_memory(name):
    answer, said = BAD[name]
    with serving(answer) as (url, asked):
        command, env = [sys.executable, "-c", CHILD, url, "2"], {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
    assert said in found["said"]
    assert found["mb"] < 300
    assert found["s"] < 10  # a limit of 2 s, on a machine that may be busy; the servers would go on for 20 and 60
    assert len(asked) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", ""])
def test_a_reply_in_a_usual_encoding_is_read(encoding):
    body = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)(WHOLE)

    def answer(handler, asked):
        handler.send(200, body, [("Content-Encoding", encoding)] if encoding else [])

    with serving(answer) as (url, _):
        assert asyncio.run(OpenAIModel("x", base_url=url).ask(a_request())).text == "a word"


def test_a_reply_whose_encoding_is_broken_is_a_bad_answer_like_any_other():
    async def at_once(seconds):
        pass

    def answer(handler, asked):
        handler.send(200, b"no gzip", [("Content-Encoding", "gzip")])

    with serving(answer) as (url, asked), pytest.raises(ModelUnavailable):
        asyncio.run(OpenAIModel("x", base_url=url, sleep=at_once).ask(a_request()))


def test_a_redirect_is_not_followed_and_deep_nesting_is_a_bad_answer():
    async def at_once(seconds):
        pass

    def elsewhere(handler, asked):
        handler.send(307, b"", [("Location", "http://127.0.0.1:9/v1/chat/completions")])

    def deep(handler, asked):
        handler.send(200, b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}")

    for answer, said, tries in ((elsewhere, "sends its callers elsewhere", 1), (deep, "", 5)):
        with serving(answer) as (url, asked):
            with pytest.raises(ModelUnavailable) as caught:
                asyncio.run(OpenAIModel("x", base_url=url, sleep=at_once).ask(a_request()))
            assert said in f"{caught.value} {caught.value.remedy}"
            assert len(asked) == tries


SECRETS = {
    "OPENAI_API_KEY": "sk-proj-abcdefghijklmnopqrstuvwxyz123456",
    "OPENAI_ADMIN_KEY": "sk-admin-abcdefghijklmnopqrstuvwxyz1234",
    "OPENAI_ORG_ID": "org-of-mine",
    "OPENAI_PROJECT_ID": "project-of-mine",
    "OPENAI_CUSTOM_HEADERS": "X-Gateway-Key: mine",
    "LOCAL_KEY": "local-secret",
}


@pytest.mark.parametrize("kind", sorted(presets.LOCAL))
def test_nothing_of_the_environment_goes_to_a_local_server_unless_it_is_named(kind, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    def told(**options):
        with serving(lambda handler, asked: handler.say("a word")) as (url, asked):
            asyncio.run(getattr(presets, kind)("x", base_url=url, **options).ask(a_request()))
        return str(asked[0][0])

    assert not [value for value in SECRETS.values() if value.rpartition(" ")[2] in told()]
    assert "local-secret" in told(api_key_env="LOCAL_KEY")
    with serving(lambda handler, asked: handler.say("a word")) as (
        url,
        asked,
    ):  # the control: elsewhere the key goes along
        asyncio.run(OpenAIModel("x", base_url=url).ask(a_request()))
    assert SECRETS["OPENAI_API_KEY"] in str(asked[0][0])


def test_one_client_serves_all_calls_of_a_loop():
    connections = set()

    def answer(handler, asked):
        connections.add(handler.client_address)
        handler.say("a word")

    async def several(url):
        for _ in range(5):
            await OpenAIModel("x", base_url=url).ask(a_request())

    with serving(answer) as (url, _):
        asyncio.run(several(url))
        assert len(connections) == 1
        asyncio.run(several(url))
    assert len(connections) == 2
