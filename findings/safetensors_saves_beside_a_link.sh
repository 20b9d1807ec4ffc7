#!/usr/bin/env bash
# Since 0.8, safetensors does not write into the file that it is given: what is linked there stays as it was.
#
# A file of weights is often a link: into a cache, to a larger disk, to a copy that several runs share. Up to 0.7
# `save_file` opened it and wrote through the link, as `open` and `torch.save` do. 0.8 fills a hidden file of a random
# name in the same folder and renames it: the link becomes a file of its own, and whoever reads the other end goes on
# with the old weights, without a word. The other side of it: a program that goes through the folder meanwhile (to
# count bytes, to copy, to flush files to the disk) lists a name that is gone when it opens it.
#
# Seen with Python 3.11 and numpy 2.2.6, after saving ones through a link to a file of zeros:
#   safetensors 0.7.0   a link: True    at its other end: 1.0    names seen in the folder: weights.safetensors
#   safetensors 0.8.0   a link: False   at its other end: 0.0    names seen in the folder: another one, too
#
# Needs uv; installs into a folder of its own and removes it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > save.py <<'PYTHON'
import os
import sys
import threading
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

work = Path(sys.argv[1])
(work / "shared").mkdir(parents=True)
(work / "model").mkdir()
other, link = work / "shared" / "weights", work / "model" / "weights.safetensors"
save_file({"x": np.zeros(2)}, other)
link.symlink_to(Path("..") / "shared" / "weights")
save_file({"x": np.ones(2)}, link)
is_link, found = link.is_symlink(), load_file(other)["x"][0]

seen, stop = set(), threading.Event()
watcher = threading.Thread(target=lambda: [seen.update(os.listdir(work / "model")) for _ in iter(stop.is_set, True)])
watcher.start()
for _ in range(20):
    save_file({"x": np.ones(2_000_000)}, link)
stop.set()
watcher.join()
hidden = seen - {link.name}
print(f"safetensors {safetensors.__version__}   a link: {is_link}   at its other end: {found}   other names: {len(hidden)}")
expected = (True, 1.0, False) if safetensors.__version__ == "0.7.0" else (False, 0.0, True)
assert (is_link, found, bool(hidden)) == expected, "safetensors saves otherwise now: this finding is out of date"
PYTHON
for version in 0.7.0 0.8.0; do
    uv venv --quiet --python 3.11 "$version"
    uv pip install --quiet --python "$version/bin/python" safetensors==$version numpy==2.2.6
    "$version/bin/python" save.py "$folder/work-$version"
done
