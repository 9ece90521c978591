"""Algorithms, one file each, and what they share; `registry` knows them by name."""
