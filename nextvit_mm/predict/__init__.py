"""Exported files at work: on a picture, and in the place of an MM model."""
