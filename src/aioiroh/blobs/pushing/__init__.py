"""The pusher: offering content to a peer that takes it."""
