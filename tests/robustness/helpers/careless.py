"""``python careless.py FOLDER``, with the shim: kills stores that are not written as they should be, for a test."""

import json
import sys
from pathlib import Path

from robustness.kills import Place, run
from robustness.report import Campaign
from robustness.stores import Store


class InPlace(Store):
    """Overwrites a file where it is: half of it is found after a kill."""

    name = "in place"

    def prepare(self, random):
        self.texts = ["a" * 100, "b" * 100]

    def work(self, folder, acknowledge, done=()):
        for text in self.texts:
            self.write(folder / "file", text)
            acknowledge(text)
        return (folder / "file").read_text()

    def write(self, path, text):
        path.write_text(text)

    def problems(self, folder, acknowledged):
        path = folder / "file"
        text = path.read_text() if path.exists() else ""
        allowed = self.texts[max(0, len(acknowledged) - 1) :] + ([] if acknowledged else [""])
        return [] if text in allowed else [f"half a file, or an older one: {text[:1]!r} {len(text)}"]


class Unsynchronised(InPlace):
    """Replaces the file in one step, but has the disk hold nothing: only a loss of power shows it."""

    name = "unsynchronised"

    def write(self, path, text):
        path.with_name("new").write_text(text)
        path.with_name("new").rename(path)


class Forgetful(InPlace):
    """Writes when it ends."""

    name = "forgetful"

    def work(self, folder, acknowledge, done=()):
        for text in self.texts:
            acknowledge(text)
        self.write(folder / "file", self.texts[-1])
        return self.texts[-1]


if __name__ == "__main__":
    parent = Path(sys.argv[1])
    place = Place.within(parent)
    for kind in (InPlace, Unsynchronised, Forgetful):
        campaign = Campaign(kind.name, 0, parent / f"{kind.name}.jsonl", minutes=5, total=12)
        run(campaign, place, [kind])
        print(json.dumps([kind.name, [failure for trial in campaign.trials for failure in trial.failures]]))
