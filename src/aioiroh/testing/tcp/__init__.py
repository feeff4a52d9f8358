"""TCP on the virtual network: what relays and HTTP need of it."""
