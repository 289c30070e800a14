"""The engine store: what is expensive to make is made once, by content."""
