"""Which of two deployments is faster, and which is more often right."""
