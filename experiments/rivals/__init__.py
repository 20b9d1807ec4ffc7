"""What rules that reduce visual tokens are worth once a model has been taught with them: ``marc world rivals``."""
