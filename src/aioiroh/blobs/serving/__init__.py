"""The provider: who may ask for what, and the answers."""
