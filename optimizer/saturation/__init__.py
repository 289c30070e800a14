"""Saturation: how far a deployment can be loaded, and what that costs its users."""
