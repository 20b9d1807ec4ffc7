"""The page in a real browser, as people use it: by keyboard alone, on a phone, with what goes wrong."""

import json
import re
import time
from contextlib import contextmanager

import numpy as np
import pytest
from running_server import Running, noted

from benchmarks.browser import browser, find_browser
from marc import VideoAssistant
from marc.model.tiny import build_tiny
from marc.types import GenerationOptions
from marc.video import write_video
from marc.world.export import write_sample

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(find_browser() is None, reason="the system has no Chromium or Chrome")

PHONE = {"width": 360, "height": 740}
HOSTILE = '<img src=x onerror="document.title=1">&amp;.mp4'
WAIT = 60_000
"""Milliseconds; the machine may be busy."""


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / HOSTILE
    write_sample(path)
    return path


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    assistant = VideoAssistant.from_pretrained(device="cpu", dtype="float32")
    server = Running(assistant, tmp_path_factory.mktemp("server"), page=True)
    yield server
    server.stop()


class Visitor:
    """Somebody with the page before them; notes what the browser complains about and where requests go."""

    def __init__(self, chromium, url, **options):
        self.page = chromium.new_context(**{"viewport": PHONE, **options}).new_page()
        self.page.set_default_timeout(WAIT)
        self.complaints, self.addresses, self.choosers = [], [], []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        # A listener of the time of the press would be too late on a busy machine: the browser would ask nobody.
        self.page.on("filechooser", lambda chooser: self.choosers.append(chooser))
        self.page.goto(url)
        self.until("document.getElementById('limit').textContent || !document.getElementById('key-form').hidden")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, selector):
        """Goes on by Tab until something has the focus."""
        for _ in range(60):
            if self.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            self.press("Tab")
        raise AssertionError(f"Tab does not lead to {selector}")

    def choose(self, path):
        self.tab_to("#file")
        self.press("Enter")
        while not self.choosers:
            self.page.wait_for_timeout(50)
        self.choosers.pop().set_files(path)

    def wait_for(self, selector):
        with self.told(selector):
            self.page.wait_for_selector(selector)

    def wait_for_status(self, pattern):
        with self.told(pattern):
            self.page.wait_for_function(
                "pattern => RegExp(pattern).test(document.getElementById('status').textContent)", arg=pattern
            )

    def until(self, condition):
        """Waits until something is true in the page; a bare expression would be refused by its policy."""
        with self.told(condition):
            self.page.wait_for_function(f"() => {condition}")

    @contextmanager
    def told(self, wanted):
        """What the page says instead of what was waited for."""
        try:
            yield
        except playwright.TimeoutError as error:
            said = self.texts("#status, .messages, #work, .warnings, .answer .text")
            raise AssertionError(f"no {wanted}; {said} {self.complaints}") from error

    def until_cut_is_at(self, share, name):
        title = f"document.getElementById('work-name').textContent === 'Cutting {name} into events'"
        self.until(f"{title} && document.getElementById('work-share').value > {share}")

    def text(self, selector):
        return self.page.inner_text(selector)

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture
def visit(chromium):
    opened = []

    def visit(server, **options):
        opened.append(Visitor(chromium, server.url, **options))
        return opened[-1]

    yield visit
    for visitor in opened:
        visitor.page.context.close()


def test_everything_by_keyboard_on_a_phone(visit, running, sample):
    visitor = visit(running)
    visitor.choose(sample)
    visitor.wait_for("#strip button img")
    events = visitor.texts("#strip button")
    assert len(events) > 2 and visitor.text("#videos").strip() == HOSTILE

    visitor.tab_to("#strip button")
    visitor.press("ArrowRight", "ArrowRight", "Home", "End", "Enter")
    last = visitor.page.locator("#strip button").last
    assert last.get_attribute("aria-pressed") == "true" and last.evaluate(
        "button => button === document.activeElement"
    )
    assert visitor.page.input_value("#start") == "21" or float(visitor.page.input_value("#start")) > 0
    visitor.press("Enter")
    assert visitor.page.input_value("#start") == "", "the whole video again"

    visitor.tab_to("#question")
    visitor.page.keyboard.type("What happens in the checkered scene?")
    visitor.tab_to("#compare")
    visitor.press("Space")
    visitor.tab_to("#send")
    visitor.press("Enter")
    visitor.wait_for_status("The answers are equal: 4 visual tokens, 1")
    assert visitor.texts(".answer .text") == ["a red cross moves down"] * 2
    assert visitor.texts(".answer h3") == ["Budget events:1", "Every token"]
    assert any("retrieved" in text for text in visitor.texts("#strip button"))
    assert all("score" in text for text in visitor.texts("#strip button"))

    visitor.tab_to(".seen summary")
    visitor.press("Enter")
    visitor.until("[...document.querySelectorAll('.seen[open] img')].every(image => image.naturalWidth)")
    groups = visitor.texts(".seen[open] .groups li")
    assert len(groups) == 4 and groups[0].startswith("Merged frame 1: ")

    visitor.tab_to("#wanted")
    visitor.page.keyboard.type("a red cross")
    visitor.press("Enter")
    visitor.wait_for("#found li")
    visitor.tab_to("#found button")
    visitor.press("Enter")
    assert visitor.page.evaluate("document.activeElement.id") == "question"
    assert visitor.page.input_value("#end") != ""

    assert visitor.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], "nothing sticks out"
    assert visitor.complaints == [] and visitor.page.title() == "MARC: ask a video"
    assert all(re.match(rf"{running.url}/|data:|blob:", address) for address in visitor.addresses)


def test_what_was_sent_is_there_after_a_reload_until_it_is_removed(visit, running, sample):
    visitor = visit(running)
    visitor.choose(sample)
    visitor.wait_for("#strip button")
    visitor.page.reload()
    visitor.wait_for("#strip button")
    assert visitor.page.is_hidden("#player"), "the browser no longer has the file"
    visitor.tab_to("#forget")
    visitor.press("Enter")
    visitor.wait_for_status("was removed")
    assert visitor.page.is_hidden("#chosen") and visitor.page.is_hidden("#events")
    visitor.page.reload()
    visitor.until("document.getElementById('limit').textContent")
    assert visitor.page.is_hidden("#chosen")


def test_cutting_is_shown_and_can_be_cancelled(visit, running, tmp_path):
    long = tmp_path / "long.mp4"
    write_video(long, two_colours(3000), fps=5)
    visitor = visit(running)
    visitor.choose(long)
    visitor.until_cut_is_at(0.02, "long.mp4")
    visitor.tab_to("#work-cancel")
    visitor.press("Enter")
    visitor.wait_for_status("Cancelled.")
    assert visitor.page.is_hidden("#work") and visitor.page.is_hidden("#problem")
    deadline = time.monotonic() + 20
    page = running.app.state.page
    while page.is_cutting and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not page.is_cutting and not list(running.app.state.server.media.memories.glob("*long*"))


def two_colours(count):
    frames = np.zeros((count, 56, 56, 3), np.uint8)
    frames[::2] = 200
    return frames


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_video_of_an_hour(visit, running, tmp_path, record_property):
    hour = tmp_path / "hour.mp4"
    generator = np.random.default_rng(0)
    scenes = generator.integers(0, 256, (450, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    write_video(hour, scenes.repeat(40, 0), fps=5)
    visitor = visit(running)
    visitor.page.set_default_timeout(1_500_000)
    visitor.choose(hour)
    visitor.until_cut_is_at(0.05, "hour.mp4")
    visitor.tab_to("#work-cancel")
    visitor.press("Enter")
    visitor.wait_for_status("Cancelled.")
    begun = time.monotonic()
    visitor.page.reload()
    visitor.wait_for("#strip button")
    record_property("seconds to cut", time.monotonic() - begun)
    count = visitor.page.locator("#strip button").count()
    assert count >= 300 and visitor.text("#events-note") == f"{count} events in 1:00:00."
    visitor.tab_to("#strip button")
    begun = time.monotonic()
    visitor.press("End")
    assert visitor.page.evaluate("document.activeElement.textContent").startswith(f"Event {count} · ")
    visitor.press("Enter")
    visitor.tab_to("#question")
    visitor.page.keyboard.type("What is shown?")
    visitor.press("Enter")
    visitor.wait_for_status("Answer: ")
    record_property("seconds to ask about the last event", time.monotonic() - begun)
    assert visitor.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_a_stream_is_seen_as_it_comes_and_can_be_stopped(visit, tmp_path, sample):
    for part in build_tiny():
        part.save_pretrained(tmp_path / "model")
    options = GenerationOptions(max_new_tokens=3000)
    assistant = VideoAssistant.from_pretrained(str(tmp_path / "model"), memory=None, generation=options, device="cpu")
    answers = noted(assistant)
    server = Running(assistant, tmp_path / "server", page=True)
    try:
        visitor = visit(server)
        visitor.choose(sample)
        visitor.wait_for_status("does not cut videos")
        visitor.tab_to("#question")
        visitor.page.keyboard.type("What is shown?")
        visitor.press("Enter")
        visitor.until("document.querySelector('.answer .text').textContent.length > 20")
        assert visitor.page.get_attribute(".answer .text", "aria-busy") == "true"
        visitor.tab_to("#stop")
        visitor.press("Enter")
        visitor.wait_for("#send")
        assert visitor.texts(".answer .warnings li") == ["Stopped."]
        assert visitor.page.evaluate("document.activeElement.id") == "send"
        assert server.post(messages=[{"role": "user", "content": "Hello?"}], max_tokens=2).status_code == 200
        assert not answers[0].is_cut, "the server has stopped, too, before the output was as long as it might be"
    finally:
        server.stop()


def test_what_servers_and_models_say_is_text(visit, running, sample):
    hostile = '<script>document.title = 1</script><b onclick="x">'
    record = {
        "answer": hostile, "output": f"{hostile} {hostile}", "frames": 1, "visual_tokens_before": 2,
        "visual_tokens_after": 1, "prompt_tokens_before": 3, "prompt_tokens_after": 2, "seconds": {"total": 1},
        "events": [], "videos": [], "warnings": [hostile],
    }  # fmt: skip
    piece = {"choices": [{"delta": {"content": hostile}}]}
    stream = "".join(f"data: {json.dumps(each)}\n\n" for each in (piece, {"choices": [], "marc": record}))
    visitor = visit(running)
    visitor.page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body=f"{stream}data: [DONE]\n\n", content_type="text/event-stream"),
    )
    visitor.choose(sample)
    visitor.wait_for("#strip button")
    visitor.tab_to("#question")
    visitor.page.keyboard.type("What?")
    visitor.press("Enter")
    visitor.wait_for(".answer .warnings li")
    assert visitor.texts(".answer .text") == [hostile] and visitor.texts(".answer .warnings li") == [hostile]
    assert (
        visitor.page.title() == "MARC: ask a video" and visitor.page.locator(".answer b, .answer script").count() == 0
    )


def test_errors_are_said_plainly(visit, running, tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    visitor = visit(running)
    visitor.tab_to("#question")
    visitor.page.keyboard.type("What?")
    visitor.press("Enter")
    visitor.wait_for("#problem")
    assert visitor.text("#problem") == "Choose a video first."
    assert visitor.page.evaluate("document.activeElement.id") == "file"
    visitor.choose(tmp_path / "notes.mp4")
    visitor.until("/FFmpeg cannot open it/.test(document.getElementById('problem').textContent)")
    assert str(running.app.state.server.media.folder) not in visitor.text("#problem")
    dropped = visitor.page.evaluate_handle(
        "() => { const all = new DataTransfer(); all.items.add(new File(['x'], 'dropped.mp4')); return all; }"
    )
    visitor.page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    visitor.until("document.getElementById('videos').selectedOptions[0]?.text === 'dropped.mp4'")
    visitor.until("/FFmpeg cannot open it/.test(document.getElementById('problem').textContent)")
    visitor.page.route("**/page/search", lambda route: route.abort())
    visitor.tab_to("#wanted")
    visitor.page.keyboard.type("red")
    visitor.press("Enter")
    visitor.until("/cannot be reached/.test(document.getElementById('problem').textContent)")


def test_a_key_is_asked_for_and_files_that_are_too_large_are_not_sent(visit, tmp_path, sample):
    assistant = VideoAssistant.from_pretrained(memory=None, device="cpu", dtype="float32")
    server = Running(assistant, tmp_path, key="secret", page=True, max_upload_mib=0.001)
    try:
        visitor = visit(server)
        visitor.wait_for("#key-form")
        assert visitor.page.evaluate("document.activeElement.id") == "key"
        visitor.page.keyboard.type("wrong")
        with visitor.page.expect_response("**/page/settings"):
            visitor.press("Enter")
        visitor.until("document.activeElement.id === 'key'")
        assert "key is wrong" in visitor.text("#problem")
        visitor.press("Control+a")
        visitor.page.keyboard.type("secret")
        visitor.press("Enter")
        visitor.until("document.getElementById('limit').textContent")
        assert visitor.page.is_hidden("#key-form") and visitor.page.is_hidden("#problem")
        visitor.choose(sample)
        visitor.wait_for("#problem")
        assert "takes files of at most 0.001 MiB" in visitor.text("#problem")
        assert not any(address.endswith("/v1/files") for address in visitor.addresses)
    finally:
        server.stop()


CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (node) => {
    for (; node; node = node.parentElement) {
      const [r, g, b, a] = parse(getComputedStyle(node).backgroundColor);
      if (a !== 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("body *")].filter((node) =>
    node.checkVisibility() && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
  return texts.map((node) => {
    const ink = parse(getComputedStyle(node).color);
    const [light, dark] = [ink, paper(node)].map(luminance).sort((a, b) => b - a);
    return [node.tagName + "." + node.className, (light + 0.05) / (dark + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_and_controls_have_names(visit, running, sample, scheme):
    visitor = visit(running, color_scheme=scheme)
    visitor.choose(sample)
    visitor.wait_for("#strip button")
    visitor.tab_to("#question")
    visitor.page.keyboard.type("What happens in the checkered scene?")
    visitor.press("Enter")
    visitor.wait_for_status("Answer: ")
    ratios = visitor.page.evaluate(CONTRAST)
    assert len(ratios) > 20 and [each for each in ratios if each[1] < 4.5] == []
    for role in ("button", "textbox", "combobox", "checkbox", "spinbutton", "searchbox", "img", "progressbar"):
        controls = visitor.page.get_by_role(role)
        assert controls.count() == visitor.page.get_by_role(role, name=re.compile(r"\w")).count(), role
