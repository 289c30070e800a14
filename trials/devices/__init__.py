"""Devices that engines may run on, beside the processor: one small seam, and who is behind it."""
