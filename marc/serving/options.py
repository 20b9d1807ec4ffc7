"""What a server allows, and where it keeps what it is sent: the only declaration of these options."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from marc.options import Limits, check


@dataclass(frozen=True)
class ServeOptions:
    """What a server allows, and where it keeps what it is sent.

    Attributes:
        host: Address to listen at; 0.0.0.0 is every one that the machine has.
        port: Port to listen at; 0 is any free one.
        folder: Where videos and their memories are kept; ``None``: ~/.local/share/marc/server.
        max_upload_mib: Largest request, and largest file.
        max_kept_mib: Room for the files of clients and what is kept of them; the ones longest unused go first.
        keep_features: Keep encoded videos on disk, too: a restarted server answers about them without its tower.
        max_video_seconds: Longest video.
        max_waiting: Requests that may wait; more are refused with 429.
        max_batch: Most questions of one generation.
        gather_ms: Milliseconds for which a question waits for others that can be answered with it.
        request_seconds: Time limit of a request.
        page: Have a page for browsers at the server's address.
        library: Folder or LanceDB address of remembered videos that everybody who may ask may also search and see.
        watched: Folder of watched sources (`marc watch --watch-folder`) that everybody who may ask may also ask about,
            as ``watch:NAME`` in place of an address.

    Raises:
        ValueError: If a value is out of range.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Limits(least=0, most=65535)] = 8000
    folder: Path | None = None
    max_upload_mib: Annotated[float, Limits(above=0)] = 512
    max_kept_mib: Annotated[float, Limits(above=0)] = 8192
    keep_features: bool = False
    max_video_seconds: Annotated[float, Limits(above=0)] = 4 * 3600.0
    max_waiting: Annotated[int, Limits(least=1)] = 64
    max_batch: Annotated[int, Limits(least=1)] = 16
    gather_ms: Annotated[float, Limits(least=0)] = 10.0
    request_seconds: Annotated[float, Limits(above=0)] = 600.0
    page: bool = False
    library: str | None = None
    watched: Path | None = None

    def __post_init__(self) -> None:
        check(self)

    @property
    def kept_in(self) -> Path:
        """The folder."""
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return self.folder or Path(data) / "marc" / "server"
