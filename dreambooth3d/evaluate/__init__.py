"""Stage: scores of clips against the pictures of their subject."""
