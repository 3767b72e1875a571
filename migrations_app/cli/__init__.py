"""What the commands about migrations have in common: words, progress, waiting."""
