"""Policies as graphs that other runtimes read."""
