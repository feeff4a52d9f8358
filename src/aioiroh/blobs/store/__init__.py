"""Where blobs are kept: the interface of a store, and the stores in memory and in files."""
