"""Two calculators side by side: what they say about crystals, liquids, errors and time."""
