"""optuna-dashboard over the studies."""
