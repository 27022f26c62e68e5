"""A page in the browser: drop a picture, see what a model finds in it, and where it looks."""
