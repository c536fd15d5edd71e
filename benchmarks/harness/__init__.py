"""How AdamW is measured: the same for every commit, so taken from the working tree and never from the commit."""
