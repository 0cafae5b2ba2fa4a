"""How fast everything is, and how fast this machine could be."""
