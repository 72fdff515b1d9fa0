"""Stage: train the embedded backbone from scratch on the procedural world."""
