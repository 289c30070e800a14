"""A chosen deployment, taken out of the workspace."""
