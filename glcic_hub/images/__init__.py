"""Images: boxes, files, arrays, masks."""
