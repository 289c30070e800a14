"""Classifiers of Fashion-MNIST and three slices of its images."""
