"""Newer models from a signed repository: which one, fetched how, kept where."""
