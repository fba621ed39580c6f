"""Backbones: torch modules that turn images or texts into vectors, and their way into the encoder file."""
