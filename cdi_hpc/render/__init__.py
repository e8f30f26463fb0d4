"""Plans written in other languages."""
