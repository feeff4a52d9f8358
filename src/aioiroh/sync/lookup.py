"""`aioiroh.lookup` for programs that block."""

from .namespace import blocking_module

__all__, __getattr__, __dir__ = blocking_module("aioiroh.lookup")
