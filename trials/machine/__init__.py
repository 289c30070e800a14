"""What the numbers were measured on."""
