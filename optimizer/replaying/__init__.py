"""A space measured once, in a table, on which samplers race without a device."""
