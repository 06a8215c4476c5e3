"""Tensors in files <-> variables of a model: files, tables, conversions, matching, writing."""
