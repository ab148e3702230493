"""Data sets: images, and bags of instances."""
