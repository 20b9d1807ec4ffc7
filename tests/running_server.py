"""A server for tests, and what its clients say."""

import base64
import threading
import time

import httpx
import openai
import uvicorn

from marc.serving.app import make_app
from marc.serving.options import ServeOptions
from marc.serving.page import add_page


class Running:
    """A server on a port of its own, in a thread."""

    def __init__(self, assistant, folder, allowed=(), key=None, **options):
        self.app = make_app(assistant, ServeOptions(folder=folder, port=0, **options), allowed=allowed, key=key)
        if options.get("page"):
            add_page(self.app)
        self.server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key or "none", max_retries=0)

    def stop(self):
        self.server.should_exit = True
        self.thread.join()

    def post(self, **body):
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)


def data_url(path, kind="video/mp4"):
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def asks(url, text="What is shown?", kind="video_url"):
    return [{"role": "user", "content": [{"type": kind, kind: {"url": url}}, {"type": "text", "text": text}]}]


def noted(assistant):
    """The answers that an assistant will give."""
    answers, ask_batch = [], assistant.ask_batch

    def ask(*asked):
        given = ask_batch(*asked)
        answers.extend(given)
        return given

    assistant.ask_batch = ask
    return answers
