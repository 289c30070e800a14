"""A study as one file that can be attached to a decision."""
