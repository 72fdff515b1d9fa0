"""Stage 2: one subject adapter from a few photos of one object."""
