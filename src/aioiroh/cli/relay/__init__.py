"""`aioiroh relay`: a relay server of one's own."""
