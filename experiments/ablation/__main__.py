"""``python -m experiments.ablation``: what ``marc world ablation`` runs in a checkout."""

import sys

from experiments.commands import main

if __name__ == "__main__":
    main(["ablation", *sys.argv[1:]])
