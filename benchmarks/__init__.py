"""Speed, side by side with upstream: `make bench` writes README.md in this folder."""
