"""The study of losses with a learned variance, in pieces."""
