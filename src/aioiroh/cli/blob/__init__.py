"""`aioiroh blob`: a store that stays, and what is in it.

`commands` holds the commands and their options, `place` which store is meant, `content` what is
meant in it; one module each for what is done.
"""
