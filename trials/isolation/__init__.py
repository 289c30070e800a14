"""Trials in a process of their own, so that none takes the search down."""
