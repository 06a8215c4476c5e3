"""Adapters: small trainable parts of built layers (LoRA, DoRA, IA3, bottleneck)."""
