"""Turns a PyTorch model into an artifact that Lethe accepts: see README.md in this folder."""
