"""What reinforcement adds to a supervised student that rarely reasons, at equal time, labels and traces.

Read in this order: `settings` (what is compared), `rows` (labels for all questions, traces for a few), `training`
(how, and for how long), `run` and `report`. What it shares with the ablation is imported from there.
"""
