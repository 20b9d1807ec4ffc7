"""What browsers send for other sites' pages is not answered; what programs and the page send is."""

import pytest
from starlette.requests import Request

from marc.serving.origins import why_foreign, why_no_local_name


def request(method="POST", **headers):
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "path": "/", "query_string": b"", "headers": raw})


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),
        ({"origin": "http://localhost:8000"}, False),
        ({"origin": "http://localhost:9000"}, True),
        ({"origin": "https://example.com"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://[broken"}, True),
        ({"sec_fetch_site": "same-origin", "origin": "https://behind-a-proxy.org"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"sec_fetch_site": "same-site"}, True),
        ({"sec_fetch_site": "cross-site", "origin": "http://localhost:8000"}, True),
    ],
)
def test_requests_of_other_sites(headers, is_foreign):
    assert (why_foreign(request(host="localhost:8000", **headers)) is not None) == is_foreign
    assert why_foreign(request("GET", host="localhost:8000", **headers)) is None, "a link may lead here"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LocalHost:1", "127.0.0.1:8000", "127.1.2.3", "[::1]:80"]
)
def test_names_of_this_machine(host):
    assert why_no_local_name(request(host=host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "example.com:8000",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "10.0.0.1",
        "",
        "[x",
        "[::2]",
    ],
)
def test_other_names(host):
    assert "answers to localhost" in why_no_local_name(request(host=host))
