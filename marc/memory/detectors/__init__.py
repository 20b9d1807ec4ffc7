"""Detectors of shot boundaries."""
