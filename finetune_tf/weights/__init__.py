"""Loading and saving weights: files, weight tables, conversions, matching and writing."""
