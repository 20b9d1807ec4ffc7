"""Fetching by address: of named domains, from public addresses, each checked where it is connected to."""

import asyncio
import http.server
import shutil
import ssl
import subprocess
import threading

import httpx
import pytest

from marc.serving.fetching import AT_ONCE, MOST_REDIRECTS, CheckedTransport, Fetcher, is_public
from marc.serving.media import MediaStore, RefusedError

HOST, OTHER = "videos.example.org", "other.example.org"
PUBLIC = "93.184.215.14"
CONTENT = b"what is at the address" * 1000
MAX_FILE = 100_000


class Net(httpx.AsyncBaseTransport):
    """What is behind the addresses; notes who was connected to."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    async def handle_async_request(self, request):
        assert request.extensions["sni_hostname"] == request.headers["host"], "the certificate must be the host's"
        self.asked.append((request.url.host, request.headers["host"], request.url.path))
        answer = self.answers[request.headers["host"], request.url.path]
        return await answer() if callable(answer) else answer


def video(content=CONTENT, kind="video/mp4", **headers):
    return httpx.Response(200, headers={"content-type": kind, **headers}, stream=Stream(content))


class Stream(httpx.AsyncByteStream):
    def __init__(self, content):
        self.content = content

    async def __aiter__(self):
        for start in range(0, len(self.content), 4096):
            yield self.content[start : start + 4096]


def redirect(where):
    return httpx.Response(302, headers={"location": where})


@pytest.fixture
def media(tmp_path):
    return MediaStore(tmp_path, max_file=MAX_FILE, max_kept=2**24)


def fetch(media, net, url, addresses=(PUBLIC,), domains=(HOST, OTHER), seconds=5.0):
    """What a fetch gives, with a resolver that knows these addresses only."""
    names = addresses if isinstance(addresses, dict) else dict.fromkeys((HOST, OTHER), addresses)

    async def resolve(host):
        return names[host]

    def connect():
        return CheckedTransport(domains, resolve=resolve, inner=net)

    async def run():
        return await Fetcher(domains, media, max_file=MAX_FILE, connect=connect, seconds=seconds).fetch(url)

    return asyncio.run(run())


def test_what_is_at_an_address_is_kept_by_content(media):
    net = Net({(HOST, "/a.mp4"): video()})
    name = fetch(media, net, f"https://{HOST}/a.mp4", ("2606:2800:21f:cb07::1", PUBLIC))
    assert media.path(name).read_bytes() == CONTENT and name == media.add([CONTENT])
    assert net.asked == [("2606:2800:21f:cb07::1", HOST, "/a.mp4")], "connected to the address that was checked"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "198.51.100.7", "::1", "::", "fe80::1", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:93.184.215.14", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::1"),
    ],
)
def test_an_address_that_is_not_public_is_never_connected_to(media, address):
    assert not is_public(address)
    net = Net({(HOST, "/a.mp4"): video()})
    for addresses in ([address], [PUBLIC, address]):
        with pytest.raises(RefusedError, match="is not on the public internet") as refused:
            fetch(media, net, f"https://{HOST}/a.mp4", addresses)
        assert (refused.value.status, net.asked) == (403, [])


def test_public_addresses_are_public():
    assert is_public(PUBLIC) and is_public("2606:2800:21f:cb07::1")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"http://{HOST}/a.mp4", "only https://host/path is fetched"),
        (f"https://{HOST}:8443/a.mp4", "only https://host/path is fetched"),
        (f"https://user:word@{HOST}/a.mp4", "only https://host/path is fetched"),
        ("https://elsewhere.example.org/a.mp4", "elsewhere.example.org is no domain that is allowed"),
        (f"https://{HOST}.example.net/a.mp4", "is no domain that is allowed"),
        (f"https://sub.{HOST}/a.mp4", "is no domain that is allowed"),
        ("https://127.0.0.1/a.mp4", "is no domain that is allowed"),
        ("https://[::1]/a.mp4", "is no domain that is allowed"),
        ("https:///a.mp4", "only https://host/path is fetched"),
        ("https://[", "this is no address"),
    ],
)
def test_other_addresses_are_refused(media, url, message):
    net = Net({})
    with pytest.raises(RefusedError, match=message):
        fetch(media, net, url)
    assert net.asked == []


def test_redirects_are_checked_like_addresses(media):
    net = Net({(HOST, "/a"): redirect(f"https://{OTHER}/b"), (OTHER, "/b"): video()})
    assert media.path(fetch(media, net, f"https://{HOST}/a")).read_bytes() == CONTENT
    assert [host for _, host, _ in net.asked] == [HOST, OTHER]
    relative = Net({(HOST, "/a"): redirect("/b"), (HOST, "/b"): video()})
    assert fetch(media, relative, f"https://{HOST}/a") and relative.asked[1] == (PUBLIC, HOST, "/b")
    for where, message in (
        (f"http://{OTHER}/b", "only https://host/path is fetched"),
        ("https://elsewhere.example.org/", "no domain that is allowed"),
        ("https://169.254.169.254/latest", "no domain that is allowed"),
    ):
        net = Net({(HOST, "/a"): redirect(where)})
        with pytest.raises(RefusedError, match=message):
            fetch(media, net, f"https://{HOST}/a")
        assert len(net.asked) == 1
    net = Net({(HOST, "/a"): redirect(f"https://{OTHER}/b"), (OTHER, "/b"): video()})
    with pytest.raises(RefusedError, match="not on the public internet"):
        fetch(media, net, f"https://{HOST}/a", {HOST: [PUBLIC], OTHER: ["10.0.0.1"]})
    circle = Net({(HOST, "/a"): redirect(f"https://{HOST}/a")})
    with pytest.raises(RefusedError, match=f"redirects more than {MOST_REDIRECTS} times"):
        fetch(media, circle, f"https://{HOST}/a")
    assert len(circle.asked) == MOST_REDIRECTS + 1


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (httpx.Response(404), 400, "answers 404"),
        (video(kind="text/html"), 400, "sends no video or picture, but text/html"),
        (video(**{"content-encoding": "gzip"}), 400, "sends no video or picture"),
        (video(**{"content-length": str(MAX_FILE + 1)}), 413, "a file may have"),
        (video(b"x" * (MAX_FILE + 1)), 413, "a file may have"),
    ],
)
def test_what_is_no_file_within_the_limits_is_refused(media, answer, status, message):
    with pytest.raises(RefusedError, match=message) as refused:
        fetch(media, Net({(HOST, "/a"): answer}), f"https://{HOST}/a")
    assert refused.value.status == status and list(media.folder.iterdir()) == [], "nothing is left of it"


def test_time_is_limited(media):
    async def slow():
        await asyncio.sleep(60)

    with pytest.raises(RefusedError, match=r"did not send the file within 0\.2 s") as refused:
        fetch(media, Net({(HOST, "/a"): slow}), f"https://{HOST}/a", seconds=0.2)
    assert refused.value.status == 504


def test_a_host_that_cannot_be_reached_or_resolved(media):
    async def unreachable():
        raise httpx.ConnectError("refused")

    with pytest.raises(RefusedError, match="cannot be read: ConnectError"):
        fetch(media, Net({(HOST, "/a"): unreachable}), f"https://{HOST}/a")

    async def unknown(host):
        raise OSError("unknown")

    async def run():
        transport = CheckedTransport([HOST], resolve=unknown, inner=Net({}))
        await Fetcher([HOST], media, max_file=1, connect=lambda: transport).fetch(f"https://{HOST}/a")

    with pytest.raises(RefusedError, match=f"{HOST} cannot be resolved"):
        asyncio.run(run())


@pytest.mark.parametrize("domain", ["https://a.org", "a.org/b", "*", "*.a.org", "localhost", "a.org:443", "", "A.org"])
def test_a_domain_is_a_name(media, domain):
    with pytest.raises(ValueError, match="a domain is a name such as"):
        Fetcher([domain], media, max_file=1)


def test_no_more_than_some_are_fetched_at_once(media):
    at_once, most = 0, 0

    async def counted():
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        return video()

    async def resolve(host):
        return [PUBLIC]

    def connect():
        return CheckedTransport([HOST], resolve=resolve, inner=Net({(HOST, "/a"): counted}))

    async def run():
        fetcher = Fetcher([HOST], media, max_file=MAX_FILE, connect=connect)
        return await asyncio.gather(*(fetcher.fetch(f"https://{HOST}/a") for _ in range(3 * AT_ONCE)))

    assert len(set(asyncio.run(run()))) == 1 and most == AT_ONCE


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
@pytest.mark.parametrize("host", [HOST, OTHER])
def test_over_a_real_connection_the_certificate_must_be_the_hosts(media, tmp_path, host):
    """A local server stands for the public one: only what counts as public is other than it is."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run([*command, *subject], check=True, capture_output=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "video/mp4")
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    async def resolve(host):
        return ["127.0.0.1"]

    def connect():
        inner = httpx.AsyncHTTPTransport(verify=ssl.create_default_context(cafile=certificate), trust_env=False)
        return CheckedTransport(
            [host], resolve=resolve, is_public=lambda _: True, inner=inner, port=server.server_port
        )

    async def run():
        fetcher = Fetcher([host], media, max_file=MAX_FILE, connect=connect)
        return await fetcher.fetch(f"https://{host}:{server.server_port}/a.mp4")

    try:
        if host == HOST:
            assert media.path(asyncio.run(run())).read_bytes() == CONTENT
        else:
            with pytest.raises(RefusedError, match="cannot be read: ConnectError"):
                asyncio.run(run())
    finally:
        server.shutdown()
        server.server_close()
