"""Stage: reference/target pairs as WebDataset shards."""
