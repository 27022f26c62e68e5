"""The network, and nothing but the network."""

from .nextvit import NextViT

__all__ = ['NextViT']
