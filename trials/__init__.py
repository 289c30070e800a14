"""ONE deployment: prepare, build, drive, score. No Optuna, no MLflow."""
