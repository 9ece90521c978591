"""The judge against a server in a thread: good answers, and everything that can go wrong."""

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from textgym.core import Completion
from textgym.rewards import Judge, JudgeError
from textgym.rewards import judge as module

KEY = "sk-very-secret-0123"


def chat(content):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


class Server:
    """Answers the k-th request as the k-th of ``answers`` says, the last one for ever: a text, or what handles it."""

    def __init__(self):
        self.answers, self.requests, self.running, self.most_running = [chat('{"score": 7}')], [], 0, 0
        self.closed = threading.Event()
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    answer = server.answers[min(len(server.requests), len(server.answers) - 1)]
                    server.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
                    self.question = body["messages"][0]["content"]
                    server.running += 1
                    server.most_running = max(server.most_running, server.running)
                try:
                    answer(self) if callable(answer) else self.reply(answer)
                except OSError:
                    pass  # the judge went away
                finally:
                    with lock:
                        server.running -= 1

            def reply(self, text, status=200, **headers):
                raw = text.encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self):
        self.closed.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = Server()
    yield made
    made.close()


@pytest.fixture
def make(server):
    def judge(*answers, **options):
        if answers:
            server.answers[:] = answers
        return Judge(options.pop("url", server.url), "m", **{"backoff": 0.01, "timeout": 5.0, **options})

    return judge


ONE = [Completion("Say hello.", "Hello!")]


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer,score",
    [
        ('{"score": 7}', 7),
        ('{"score": 7.5, "reason": "kind {and} short"}', 7.5),
        (" 10\n", 10),
        ("1", 1),
        ('```json\n{"score": 3}\n```', 3),
        ('It is polite. {"score": 8}', 8),
        ('{"score": 8}, to be clear: {"score": 8.0}', 8),
        ('<think>{"note": 2}</think> {"score": 4}', 4),
    ],
)
def test_good_answers(make, server, answer, score):
    judge = make(chat(answer))
    np.testing.assert_allclose(judge(ONE), [(score - 1) / 9], rtol=1e-6)
    assert judge(ONE).dtype == np.float32
    assert judge.statistics == {"requests": 1, "retries": 0, "failures": 0, "cache_hits": 1}


def test_what_is_sent(make, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    judge = make(
        api_key_env="MY_KEY",
        options={"temperature": 0.5, "max_tokens": 9},
        scale=(0, 5),
        prompt=module.PROMPT + "{references}",
    )
    server.answers[:] = [chat("5")]
    assert not server.requests
    judge([Completion("P {completion}", " C {prompt}", ("r1", "r2"), transcript=" C, then more")])
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["Authorization"] == f"Bearer {KEY}"
    body = request["body"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.5, 9)
    ((role, text),) = [(m["role"], m["content"]) for m in body["messages"]]
    assert role == "user"
    assert "<prompt>\nP {completion}\n</prompt>\n<completion>\n C, then more\n</completion>" in text
    assert "from 0 (useless) to 5 (perfect)" in text and text.endswith('{"score": <number>}r1\nr2')


def test_no_key_no_header(make, server):
    make()(ONE)
    make(api_key_env=None, cache=False)(ONE)
    assert all("Authorization" not in request["headers"] for request in server.requests)


@pytest.mark.parametrize(
    "path", ["", "/", "/v1", "/v1/", "/v1/chat/completions", "/chat/completions", "/proxy", "/proxy/v1"]
)
def test_addresses(make, server, path):
    make(url=server.url + path)(ONE)
    want = {"/chat/completions": "/chat/completions"}.get(
        path, ("/proxy" if "proxy" in path else "") + "/v1/chat/completions"
    )
    assert server.requests[0]["path"] == want


def test_a_scale_the_other_way_round(make):
    assert make(chat("1"), scale=(5, 1))(ONE)[0] == 1
    assert make(chat("4"), scale=(5, 1))(ONE)[0] == pytest.approx(0.25)


def test_unicode(make, server):
    text = "Größe 中文 🎬 \u0000 \ud800 {score}"
    assert make(chat('Gut 🎬 {"score": 10}'))([Completion("für", text)])[0] == 1
    assert text in server.requests[0]["body"]["messages"][0]["content"]


def test_nothing_to_score(make, server):
    assert make()([]).shape == (0,)
    assert not server.requests


def test_many_at_a_time(make, server):
    together = threading.Barrier(8, timeout=10)

    def echo(handler):
        together.wait()  # nobody is answered before eight have asked
        handler.reply(chat(handler.question))

    judge = make(echo, max_workers=8, prompt="{completion}", scale=(0, 64), timeout=20.0)
    numbers = [*np.random.default_rng(0).permutation(64), 5, 5]
    np.testing.assert_allclose(judge([Completion("", str(i)) for i in numbers]), np.array(numbers) / 64, rtol=1e-6)
    assert server.most_running == 8
    assert judge.statistics == {"requests": 64, "retries": 0, "failures": 0, "cache_hits": 2}


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad,reason",
    [
        ("not JSON", "no chat completion"),
        ("[" * 100_000, "no chat completion"),
        ("{}", "no chat completion"),
        (json.dumps({"choices": []}), "no chat completion"),
        (json.dumps({"choices": [{"message": {"content": None}}]}), "no text"),
        (chat("It is good."), "no score"),
        (chat(""), "no score"),
        (chat('{"grade": 7}'), "no score"),
        (chat('{"score": "7"}'), "no score"),
        (chat('{"score": true}'), "no score"),
        (chat("8/10"), "no score"),
        (chat("[" * 100_000), "no score"),
        (chat('{"score": NaN}'), "no score"),
        (chat('{"score": 1e999}'), "no score"),
        (chat('{"score": 1' + "0" * 5000 + "}"), "no score"),
        (chat('They wrote {"score": 10}. {"score": 2}'), "several scores"),
        (chat('{"score": 11}'), "the score 11 is not between 1 and 10"),
        (chat('{"score": 0}'), "the score 0 is not between 1 and 10"),
        (chat("-3"), "the score -3 is not"),
        (lambda h: h.reply("oops", 500), "status 500 Internal Server Error: 'oops'"),
        (lambda h: h.reply("busy", 503), "status 503"),
        (lambda h: h.reply("slow down", 429, Retry_After="0.01"), "status 429"),
        (lambda h: h.connection.shutdown(socket.SHUT_RDWR), "RemoteDisconnected|ConnectionReset"),
        (
            lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf") and h.connection.shutdown(2),
            "no chat completion: 'half'",
        ),
        (lambda h: h.wfile.write(b"what?\r\n\r\n"), "BadStatusLine"),
        (lambda h: h.reply("x" * 1_000_001), "more than 1,000,000 bytes"),
        (lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), "LineTooLong"),
    ],
)
def test_a_failure_is_tried_again_and_counted(make, server, bad, reason):
    judge = make(bad, bad, chat('{"score": 10}'), retries=2)
    assert judge(ONE)[0] == 1
    assert judge.statistics == {"requests": 3, "retries": 2, "failures": 0, "cache_hits": 0}
    server.requests.clear()
    judge = make(bad, retries=1)
    with pytest.raises(JudgeError, match=reason) as caught:
        judge(ONE)
    assert "attempts: 2" in str(caught.value) and "'Hello!'" in str(caught.value)
    assert judge.statistics == {"requests": 2, "retries": 1, "failures": 1, "cache_hits": 0}


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 422])
def test_what_no_other_attempt_mends_is_not_tried_again(make, server, status):
    judge = make(lambda h: h.reply("no such model", status, Location=server.url + "/elsewhere"))
    with pytest.raises(JudgeError, match=f"status {status} .*no such model"):
        judge(ONE)
    assert judge.statistics == {"requests": 1, "retries": 0, "failures": 1, "cache_hits": 0}
    assert len(server.requests) == 1


def test_waits_as_long_as_the_server_says(make, server):
    times = []

    def busy(handler):
        times.append(time.monotonic())
        handler.reply("busy", 429, Retry_After="0.3")

    def good(handler):
        times.append(time.monotonic())
        handler.reply(chat("5"))

    make(busy, good, backoff=0.0)(ONE)
    assert 0.3 <= times[1] - times[0] < 3


@pytest.mark.parametrize("header", ["86400", "Wed, 21 Oct 2099 07:28:00 GMT", "-1", "nan", "inf"])
def test_never_waits_longer_than_the_time_out(make, header):
    started = time.monotonic()
    judge = make(lambda h: h.reply("busy", 429, Retry_After=header), timeout=0.2, retries=1)
    with pytest.raises(JudgeError, match="status 429"):
        judge(ONE)
    assert judge.statistics["requests"] == 2 and time.monotonic() - started < 3


def test_waits_double(make, server):
    times = []

    def bad(handler):
        times.append(time.monotonic())
        handler.reply("", 500)

    with pytest.raises(JudgeError):
        make(bad, backoff=0.05, retries=3)(ONE)
    for gap, want in zip(np.diff(times), (0.05, 0.1, 0.2), strict=True):
        assert want <= gap < want + 1


def drip_body(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    drip(handler)


def drip_header(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    drip(handler)


def drip_chunks(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    drip(handler, b"1\r\nx\r\n")


def drip_hundred(handler):
    drip(handler, b"HTTP/1.1 100 Continue\r\n\r\n")


def drip(handler, piece=b"x"):
    for _ in range(200):
        handler.wfile.write(piece)
        handler.wfile.flush()
        time.sleep(0.02)


@pytest.mark.parametrize("slow", [lambda h: time.sleep(4), drip_body, drip_header, drip_chunks, drip_hundred])
def test_a_time_out_holds_for_the_whole_answer(make, slow):
    judge = make(slow, timeout=0.2, retries=1)
    started = time.monotonic()
    with pytest.raises(JudgeError, match=r"no complete answer within 0\.2 seconds \(attempts: 2\)"):
        judge(ONE)
    assert 0.4 <= time.monotonic() - started < 3  # the server takes 4
    assert judge.statistics == {"requests": 2, "retries": 1, "failures": 1, "cache_hits": 0}


def test_a_server_that_never_takes_the_request(make):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        judge = make(url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.2, retries=0)
        started = time.monotonic()
        with pytest.raises(JudgeError, match="no complete answer") as caught:
            judge([Completion("p", "x" * 20_000_000)])
        assert time.monotonic() - started < 10 and len(str(caught.value)) < 1000


def test_connection_refused(make):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    judge = make(url=f"http://127.0.0.1:{port}", retries=2)
    with pytest.raises(JudgeError, match=r"ConnectionRefusedError.*attempts: 3") as caught:
        judge(ONE)
    assert f"m at http://127.0.0.1:{port}/v1/chat/completions" in str(caught.value)
    assert judge.statistics["requests"] == 3


def test_https_to_a_server_without_it(make, server):
    with pytest.raises(JudgeError, match="SSL"):
        make(url=server.url.replace("http", "https"), retries=0)(ONE)


def test_the_first_failure_for_good_stops_the_others(make, server):
    judge = make(lambda h: h.reply("bad key", 401), max_workers=2)
    with pytest.raises(JudgeError, match="status 401"):
        judge([Completion("p", str(i)) for i in range(200)])
    assert len(server.requests) < 50


def test_a_score_instead_of_an_error(make, server):
    judge = make(on_error=0.25, prompt="{completion}", retries=1, max_workers=1)
    server.answers[:] = [chat("10"), "no", "no", chat("1")]
    found = judge([Completion("", str(i)) for i in range(3)])
    assert found.tolist() == [1, 0.25, 0]
    assert judge.statistics == {"requests": 4, "retries": 1, "failures": 1, "cache_hits": 0}
    assert judge([Completion("", "1")])[0] == 0  # was not remembered, so that it is asked again


# ---- cache -----------------------------------------------------------------------------------------------------------


def test_without_a_cache_every_completion_is_asked_about(make, server):
    judge = make(cache=False)
    judge(ONE * 3)
    judge(ONE)
    assert len(server.requests) == 4 and judge.statistics["cache_hits"] == 0


def test_the_cache_knows_a_request_by_all_of_it(make, server, tmp_path):
    path = tmp_path / "deep" / "cache.jsonl"
    make(cache=path)(ONE * 3)
    assert len(server.requests) == 1
    again = make(cache=str(path))
    again([*ONE, Completion("Say hello.", "Hello?")])
    assert again.statistics == {"requests": 1, "retries": 0, "failures": 0, "cache_hits": 1}
    make(cache=path, options={})(ONE)
    make(cache=path, prompt="Other: {completion}")(ONE)
    Judge(server.url, "other", cache=path)(ONE)
    assert len(server.requests) == 5
    assert len(path.read_text().splitlines()) == 5
    assert "Hello" not in path.read_text()


def test_the_cache_holds_across_processes(make, server, tmp_path):
    path = tmp_path / "cache.jsonl"
    want = make(cache=path)(ONE)
    server.close()
    code = f"""
from textgym.core import Completion
from textgym.rewards import Judge
judge = Judge({server.url!r}, "m", cache={str(path)!r}, retries=0)
print(judge([Completion("Say hello.", "Hello!")])[0], judge.statistics["cache_hits"])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert float(out[0]) == pytest.approx(want[0]) and out[1] == "1"


def test_a_damaged_cache_is_mended(make, server, tmp_path):
    path = tmp_path / "cache.jsonl"
    make(cache=path)(ONE)
    (line,) = path.read_text().splitlines()
    path.write_text("\n".join(["{", "[]", '{"key": 1}', '{"key": "a", "score": "x"}', "\ufffd", line, line[:20]]))
    judge = make(cache=path)
    judge([*ONE, Completion("a", "new")])
    assert judge.statistics["cache_hits"] == 1
    assert json.loads(path.read_text().splitlines()[-1])["score"] == 7  # on a line of its own


def test_a_cached_score_outside_the_scale_is_asked_for_again(make, server, tmp_path):
    path = tmp_path / "cache.jsonl"
    make(chat("10"), cache=path, prompt="{completion}")(ONE)
    judge = make(chat("2"), cache=path, prompt="{completion}", scale=(1, 5))
    assert judge(ONE)[0] == 0.25


# ---- the key, and bad arguments --------------------------------------------------------------------------------------


def test_the_key_is_never_shown(make, server, monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    judge = make(lambda h: h.reply(f"wrong key {KEY}", 401))
    with pytest.raises(JudgeError, match=r"wrong key \*\*\*") as caught:
        judge(ONE)
    error, seen = caught.value, []
    while error is not None:
        seen.append(str(error))
        error = error.__cause__ or error.__context__
    assert KEY not in " ".join([*seen, repr(judge), str(vars(judge)), repr(pickle.dumps(judge)), *capfd.readouterr()])
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n inject: x")
    with pytest.raises(JudgeError, match=r"the API key in \$OPENAI_API_KEY") as caught:
        judge(ONE)
    assert KEY not in str(caught.value) and caught.value.__context__ is None
    with pytest.raises(ValueError) as wrong:
        make(url=f"http://user:{KEY}@localhost")
    assert KEY not in str(wrong.value)
    with pytest.raises(ValueError) as wrong:
        make(api_key_env=[KEY])
    assert KEY not in str(wrong.value)


def test_a_judge_survives_a_pickle(make, server):
    judge = make()
    judge(ONE)
    again = pickle.loads(pickle.dumps(judge))
    again(ONE)
    assert again.statistics["cache_hits"] == 1 and judge.heavy


@pytest.mark.parametrize(
    "options",
    [
        {"url": "localhost:8000"},
        {"url": "ftp://localhost"},
        {"url": "http://"},
        {"url": "http://localhost:99999"},
        {"url": "http://localhost/v1?key=1"},
        {"url": "http://localhost/a b"},
        {"url": None},
        {"model": ""},
        {"prompt": "no field"},
        {"scale": (1, 1)},
        {"scale": (1,)},
        {"scale": (1, float("inf"))},
        {"api_key_env": ""},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"retries": -1},
        {"retries": 1.5},
        {"cache": 3},
        {"cache": os.sep},
        {"max_workers": 0},
        {"on_error": "ignore"},
        {"on_error": 1.5},
        {"options": {"temperature": float("nan")}},
        {"options": {"stop": object()}},
        {"backoff": -1},
    ],
)
def test_bad_arguments(options):
    with pytest.raises(ValueError, match=f"Expected `{next(iter(options))}`"):
        Judge(**{"url": "http://localhost", "model": "m", **options})
