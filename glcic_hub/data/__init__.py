"""Photographs, wherever they are."""
