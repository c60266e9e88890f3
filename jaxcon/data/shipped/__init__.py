"""The datasets that ship with jaxcon, made locally without a download: digits and scenes."""
