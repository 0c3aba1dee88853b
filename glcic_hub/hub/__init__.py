"""Models as files and on the Hub."""
