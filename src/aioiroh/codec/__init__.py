"""Encodings shared by several protocols, each exactly once. Pure functions of bytes and text."""
