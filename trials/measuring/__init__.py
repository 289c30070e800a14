"""Driving an engine, and making numbers with intervals of what was seen."""
