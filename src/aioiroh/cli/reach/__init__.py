"""Commands that tell how machines reach each other."""
