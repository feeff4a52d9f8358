"""Files and folders as collections: what is shared from them, and how content is put into them safely."""
