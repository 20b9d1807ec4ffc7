"""``vllm serve`` over loopback: a file in a request is answered as an assistant without a memory answers."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server(world, tmp_path_factory) -> Iterator[str]:
    """Its address."""
    address = f"127.0.0.1:{free_port()}"
    log = tmp_path_factory.mktemp("server") / "log.txt"
    environment = {**os.environ, "VLLM_VIDEO_LOADER_BACKEND": "marc"}
    command = [Path(sys.executable).with_name("vllm"), "serve", world.checkpoint, "--served-model-name", "tiny"]
    options = ["--host", "127.0.0.1", "--port", address.partition(":")[2], "--dtype", "float32", "--enforce-eager"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *options, "--max-model-len", "4096", "--trust-request-mm-kwargs"],
            env=environment,
            stdout=file,
            stderr=file,
        )
    try:
        deadline = time.monotonic() + 500
        while process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        else:
            pytest.fail(log.read_text()[-4000:])
        yield address
    finally:
        process.terminate()
        process.wait(60)


def ask(address: str, video: Path, prompt: str, options: dict[str, Any]) -> dict[str, Any]:
    data = base64.b64encode(video.read_bytes()).decode()
    content = [
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}},
        {"type": "text", "text": prompt},
    ]
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 24,
        **({"media_io_kwargs": {"video": options}} if options else {}),
    }
    request = urllib.request.Request(
        f"http://{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)


def test_answers_over_loopback_are_those_of_transformers(server, world):
    sample, prompt_tokens = world.folder / "sample.mp4", []
    for expected in json.loads((world.folder / "answers.json").read_text()):
        options = {} if expected["budget"] is None else {"budget": expected["budget"]}
        for prompt, output in zip(expected["prompts"], expected["outputs"], strict=True):
            reply = ask(server, sample, prompt, options)
            assert reply["choices"][0]["message"]["content"] == output
            prompt_tokens.append(reply["usage"]["prompt_tokens"])
    assert prompt_tokens[0] < prompt_tokens[2] < prompt_tokens[4]


def test_a_wrong_option_and_a_bad_file_are_the_clients_fault(server, world, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    for video, options in ((world.folder / "sample.mp4", {"budget": "frames:0"}), (bad, {})):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(server, video, "What?", options)
        assert refused.value.code == 400
