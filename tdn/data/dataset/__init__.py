"""From frames to what training takes: subsets, statistics, batches."""
