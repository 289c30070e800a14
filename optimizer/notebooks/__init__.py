"""What ``optimizer.api`` hands out: studies, fronts and trials as pandas frames and pictures."""
