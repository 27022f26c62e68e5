"""Speed, memory and work of networks, side by side."""
