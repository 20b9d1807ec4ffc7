"""`python -m marc.cli` is the ``marc`` command."""

from marc.cli import main

main()
