"""How right an engine's answers are."""
