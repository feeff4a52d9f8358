"""The getter: asking a provider, taking its answer into a store, progress."""
