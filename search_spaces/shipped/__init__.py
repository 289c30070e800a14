"""The spaces that ship with trifront, and their models and data."""
