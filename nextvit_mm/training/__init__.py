"""From a config and the flags of the command line to a finished run."""
