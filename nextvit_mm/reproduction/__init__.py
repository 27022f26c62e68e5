"""Runs beside the published ones."""

from .hook import PublishedRunHook

__all__ = ['PublishedRunHook']
