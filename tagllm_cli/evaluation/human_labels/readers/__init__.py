"""One module for each form of human labels."""
