#!/usr/bin/env bash
# A file that was sys.stderr while rouge_score was imported is closed when a server is configured with uvicorn later.
#
# rouge_score imports absl.logging, whose handler keeps the stream that is sys.stderr at that moment. uvicorn.Config
# configures logging by dictConfig, which first shuts down all handlers there are; absl's closes its stream then,
# unless it is a terminal or what sys.stderr or sys.stdout are now. So a file that was only lent for the import
# (contextlib.redirect_stderr, a test runner's capture) is closed under its owner's hands, and the error shows up where
# the owner writes next. Without rouge_score nothing is closed.
#
# Seen with rouge-score 0.1.2, absl-py 2.5.1, uvicorn 0.54.0, Python 3.11:
#   rouge_score imported: the file is open, behind uvicorn.Config closed
#   not imported: the file is open, behind uvicorn.Config open
#
# Needs uv; installs into a folder of its own and removes it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv --quiet --python 3.11 "$folder/venv"
uv pip install --quiet --python "$folder/venv/bin/python" rouge-score==0.1.2 nltk==3.10.4 numpy==2.4.6 absl-py==2.5.1 six==1.17.0 uvicorn==0.54.0
cd "$folder"
cat > lend.py <<'PYTHON'
import contextlib
import sys

import uvicorn


async def app(scope, receive, send):
    pass


is_imported = sys.argv[1] == "imported"
with open("lent.txt", "w") as lent:
    with contextlib.redirect_stderr(lent):
        if is_imported:
            import rouge_score.rouge_scorer  # noqa: F401
    before = lent.closed
    uvicorn.Config(app)
    state = ["open", "closed"]
    words = "rouge_score imported" if is_imported else "not imported"
    print(f"{words}: the file is {state[before]}, behind uvicorn.Config {state[lent.closed]}")
    assert (before, lent.closed) == (False, is_imported), "this has changed: the finding is out of date"
PYTHON
"$folder/venv/bin/python" lend.py imported
"$folder/venv/bin/python" lend.py without
