"""Learning: losses, metrics and the training loop."""
