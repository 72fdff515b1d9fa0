"""One loop for every training of the project: data order, optimizer, engines, checkpoints."""
