"""WHAT may be deployed: the deployment space, pure of Optuna, devices and clocks."""
