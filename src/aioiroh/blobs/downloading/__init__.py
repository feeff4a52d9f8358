"""The downloader: one blob or hash sequence from several providers at once."""
