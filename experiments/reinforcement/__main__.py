"""``python -m experiments.reinforcement``: what ``marc world reinforcement`` runs in a checkout."""

import sys

from experiments.commands import main

if __name__ == "__main__":
    main(["reinforcement", *sys.argv[1:]])
