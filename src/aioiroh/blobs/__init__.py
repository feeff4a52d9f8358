"""Blobs: content by its hash, verified on the way (`/iroh-bytes/4`)."""
