"""Sources of examples: files, data frames, datasets of other libraries."""
