"""Algorithms, one package each, found as plug-ins (see `registry.py`)."""
