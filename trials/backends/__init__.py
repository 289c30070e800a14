"""The inference engines that a deployment can run on, each behind the `Backend` seam."""
