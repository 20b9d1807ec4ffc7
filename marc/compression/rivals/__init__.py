"""Rules from the literature that keep or merge visual tokens, written from their papers, behind one interface.

`marc.compression.rivals.rule` names them all; the file of a rule is loaded when it is first used.
"""
