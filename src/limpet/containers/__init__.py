"""containers: the life of a container, from create to remove, and its monitor. Image formats are `images`' business."""
