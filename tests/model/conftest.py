"""The tiny flavour of the real classes, and transformers' own."""

from tiny_models import stock as stock
from tiny_models import tiny as tiny
