"""A store in a folder that outlives the process: see docs/store.md for its layout."""
