"""The networks: the spiking transformer, its rivals, its teachers, and their checkpoints."""
