"""Samples and labels: read, checked, split, made into model inputs."""
