"""What changing one axis alone does, from the trials of a study."""
