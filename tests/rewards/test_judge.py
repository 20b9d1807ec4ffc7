"""The judge's reward, asked of a server of our own on loopback."""

import json
from http.client import BadStatusLine, IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from marc.rewards import judge as judging
from marc.rewards.judge import Judge, judge_reward
from marc.rewards.named import find_reward


class Server(ThreadingHTTPServer):
    """Replies in turn, and keeps what it was asked."""

    def __init__(self, *replies):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.asked = list(replies), []
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def judge(self):
        return Judge(f"http://127.0.0.1:{self.server_port}/v1", "judge", "secret")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, self.headers["authorization"], body))
        reply = self.server.replies.pop(0) if len(self.server.replies) > 1 else self.server.replies[0]
        content = json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
        self.send_response(503 if reply == "busy" else 200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(judging.time, "sleep", lambda seconds: None)
    servers = []

    def start(*replies):
        servers.append(Server(*replies))
        monkeypatch.setattr(judging, "_judge", lambda: servers[-1].judge)
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        *(("7", 0.7), ("10", 1.0), ("0", 0.0), ("<think>between 3 and 5</think> 4", 0.4), (" **8** ", 0.8)),
        *(("8/10", 0.8), ("10/10", 1.0), ("**8** / 10.", 0.8), ("8 out of 10", 0.8), ("7.5", 0.75)),
        *(("Score: 8", 0.8), ("**Score:** 9/10", 0.9), ("The score is 3.", 0.3)),
    ],
)
def test_a_number_is_read_from_the_reply(serve, reply, score):
    server = serve(reply)
    assert server.judge.score("What happens?", "a dog runs", "a dog is running") == pytest.approx(score)
    ((path, key, body),) = server.asked
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer secret", "judge", 0)
    (message,) = body["messages"]
    assert all(text in message["content"] for text in ("What happens?", "a dog runs", "a dog is running"))


def test_what_fails_is_asked_again_and_then_named(serve):
    assert serve("busy", "well", "6").judge.score("q", "a", "b") == 0.6
    server = serve("eleven of ten: 11")
    with pytest.raises(
        OSError, match=r"the judge judge at http://127\.0\.0\.1:\d+/v1 gave no judgement in 3 tries: it rep"
    ):
        server.judge.score("q", "a", "b")
    assert len(server.asked) == 3
    with pytest.raises(OSError, match="gave no judgement in 3 tries"):
        Judge("http://127.0.0.1:9/v1", "gone").score("q", "a", "b")


@pytest.mark.parametrize(
    "reply", ["On a scale from 0 to 10: 9", "8/100", "8/5", "-3", "11", "3 to 4", "1/2", "8 9", ""]
)
def test_anything_else_is_no_judgement(serve, reply):
    server = serve(reply, "6")
    assert server.judge.score("q", "a", "b") == 0.6
    assert len(server.asked) == 2


def test_a_reply_that_breaks_off_is_asked_for_again(serve, monkeypatch):
    replies = iter([IncompleteRead(b"{"), BadStatusLine("x"), "6"])

    def ask(self, prompt):
        reply = next(replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(Judge, "_ask", ask)
    assert serve("unused").judge.score("q", "a", "b") == 0.6


def test_only_free_answers_are_judged_and_empty_ones_are_not_asked_about(serve):
    server = serve("5")
    chat = [
        {"role": "user", "content": [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "What happens?"}]}
    ]
    completions = [
        [{"role": "assistant", "content": "<think>hm</think><answer>a dog runs</answer>"}],
        [{"role": "assistant", "content": "no tags"}],
        "<answer>B</answer>",
    ]
    kinds = ["free-form", "free-form", "multiple choice"]
    rewards = judge_reward(completions, [chat] * 3, ["<answer>a cat</answer>"] * 3, kinds, a_full=[None] * 3)
    assert rewards == [0.5, 0.0, None]
    ((_, _, body),) = server.asked
    said = body["messages"][0]["content"]
    assert (
        "Question:\nWhat happens?\n" in said and "Right answer:\na cat\n" in said and "Answer:\na dog runs\n" in said
    )


def test_without_a_server_the_recipe_is_refused(monkeypatch):
    for name in (judging.ADDRESS, judging.MODEL):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="rewards: judge needs MARC_JUDGE_URL"):
        find_reward("judge")
    monkeypatch.setenv(judging.ADDRESS, "http://localhost:1/v1/")
    monkeypatch.setenv(judging.MODEL, "m")
    assert find_reward("judge") is judge_reward
    assert Judge.from_environment() == Judge("http://localhost:1/v1", "m", "")
