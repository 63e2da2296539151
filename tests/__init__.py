"""Tests of minifcn."""
