"""The SEARCH over deployments, its memory and its harvest."""
