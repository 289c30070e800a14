"""Why each deployment was tried, what is believed of the others, and which axes matter."""
