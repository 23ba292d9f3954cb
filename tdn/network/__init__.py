"""The networks, from layers to potentials and checkpoints."""
