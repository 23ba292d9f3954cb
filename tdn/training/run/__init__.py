"""A run on disk and on screen: folder, log, display, figures, resuming."""
