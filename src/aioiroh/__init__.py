"""Dial any device by its public key: iroh's protocols for asyncio."""
