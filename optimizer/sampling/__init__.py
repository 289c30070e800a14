"""Our own sampler: what it believes of deployments never measured, and which it tries next."""
