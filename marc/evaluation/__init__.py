"""Evaluation: benchmarks, a resumable runner, reports with intervals, and a model for lmms-eval.

In the order of the data: `samples` (what a row is), `benchmarks` (where rows come from), `official` (rules of the
benchmarks' own protocols), `methods` and `engine` (who answers), `runner` (rows on disk), `statistics`, `summary`
and `report` (what they say).
"""
