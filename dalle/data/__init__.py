"""Captioned pictures: rendered, read, decoded, ordered, and cached as tokens."""
