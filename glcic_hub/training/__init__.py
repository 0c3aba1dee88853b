"""Training of the networks (sec. 3.4), on Hugging Face Accelerate."""
