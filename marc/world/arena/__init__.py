"""The level ``arena``: a world in which it matters which visual tokens are kept."""
