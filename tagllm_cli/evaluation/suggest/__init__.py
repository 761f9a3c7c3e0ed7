"""What a vocabulary lacks and has too much of, as far as tables made with it tell."""
