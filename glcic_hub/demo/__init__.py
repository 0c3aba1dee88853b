"""The demo: its page, its files, and the Space."""
