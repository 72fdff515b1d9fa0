"""Where work runs and where it is recorded: Ray sessions, trainers, warm workers, MLflow."""
