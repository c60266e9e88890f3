"""The datasets we ship, which are made here without a download: digits and scenes."""
