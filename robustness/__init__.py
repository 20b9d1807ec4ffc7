"""Campaigns that attack the package for as long as they are given, and say what held.

`kills` ends writers at every step and loses what no disk had to keep, `crowds` has many processes share a library,
`soak` asks questions for hours. Each is a program (``python -m robustness.kills --minutes 30``), goes on where it was
interrupted, and prints what anyone needs to see a failure again. What they found: docs/reliability.md.
"""
