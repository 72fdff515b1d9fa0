"""Stage: an adapter and a prompt in, a clip out."""
