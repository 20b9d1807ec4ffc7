"""The honest ablation: what each way of training adds at one frame's tokens, at equal time, with intervals.

Read in this order: `settings` (what is compared), `views` and `pool` (what is trained on), `branches` and `methods`
(how), `learner` (for how long), `heldout` (how it is measured), `run` and `report`.
"""
