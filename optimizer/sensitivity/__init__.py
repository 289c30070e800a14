"""Which layers suffer from a precision: asked for, told and drawn."""
