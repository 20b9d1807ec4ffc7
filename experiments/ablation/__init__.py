"""The honest ablation: what each way of training adds at one frame's tokens, at equal time, with intervals.

Read in this order: `settings` (what is compared), `rows` (what is trained on), `training` (how, and for how long),
`heldout` and `evaluation` (how it is measured), `context` (what a process needs for that), `run` and `report`.
"""
