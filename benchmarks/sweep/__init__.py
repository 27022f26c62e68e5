"""Upstream configs with their own backbone and with Next-ViT."""
