"""Files in and out of containers, and what they changed."""
