"""What `experiments.collapse` leaves behind: its curves, their figure and their table."""
