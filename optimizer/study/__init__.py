"""A study: the memory of one search, in Optuna's storage."""
