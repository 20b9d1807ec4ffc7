"""The embedded model and packed batches."""

from packed_batches import batch, pool, tiny

__all__ = ["batch", "pool", "tiny"]
