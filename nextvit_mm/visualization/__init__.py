"""What a network sees: spectra, heat maps and feature maps, as PNG."""
