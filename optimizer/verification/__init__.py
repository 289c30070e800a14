"""Whether an export, or a trial, still is what it was measured to be."""
