"""The Hugging Face hub: whether it can be reached, which a downloader finds out after half a minute of retries."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

PATIENCE = 3.0
"""Seconds that it has to accept a connection."""


def hub_answers() -> bool:
    """Whether the hub, or the proxy on the way to it, accepts a connection."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def is_downloaded(repository: str, *files: str) -> bool:
    """Whether any of a repository's files is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)
