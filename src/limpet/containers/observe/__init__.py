"""What containers are and do, told: lists, figures, events."""
