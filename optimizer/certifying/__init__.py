"""The certified front: its candidates measured again, in turns, over several sessions."""
