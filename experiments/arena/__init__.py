"""A model of the level ``arena``, taught every visual token: the teacher of the rules that are compared there."""
