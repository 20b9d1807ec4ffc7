"""Rules that reduce visual tokens, asked the same questions at the same cost in the prompt (``marc arena``)."""
