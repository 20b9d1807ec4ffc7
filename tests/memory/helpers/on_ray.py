"""``python on_ray.py ADDRESS FOLDER VIDEO...`` remembers videos slowly in two pools of a cluster, to be killed."""

import sys

import colours

from marc.cluster import ClusterOptions
from marc.memory.cluster import remember_on_ray

if __name__ == "__main__":
    address, folder, *videos = sys.argv[1:]
    where = ClusterOptions(ray=address, cpus_per_worker=0.5, embed_workers=2)
    slow = colours.replace(colours.OPTIONS, segmenter="colours:SlowTwoSeconds")
    run = remember_on_ray(videos, colours.SlowColourEmbedder, slow, cluster=where, folder=folder, workers=2)
    for outcome in run:
        print(outcome.video, flush=True)
