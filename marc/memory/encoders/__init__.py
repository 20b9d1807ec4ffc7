"""The models that can embed questions, pictures and clips, one file for each kind, behind one interface."""
