"""Shared utilities: argument checks, paths, atomic file writes, labels and value checks."""
