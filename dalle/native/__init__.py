"""The decode step compiled for the processor at hand; everything works without it, more slowly."""
