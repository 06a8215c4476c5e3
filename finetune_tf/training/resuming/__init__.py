"""Saves of a running fit, from which a killed run continues exactly."""
