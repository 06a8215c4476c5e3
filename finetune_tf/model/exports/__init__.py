"""The formats that models are exported to, and models that run from exported folders."""
