"""What knows what an image is: boxes, files, arrays, masks."""
