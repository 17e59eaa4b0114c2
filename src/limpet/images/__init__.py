"""images: names, manifests, pull, load, save, capture, and what may be collected. HTTP is `registry`'s business."""
