"""The network that a run starts from."""
