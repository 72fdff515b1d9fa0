"""Every claim as a command."""
