"""layers: a layer tar in, something the kernel can mount out; and a container's changes back into a tar.

Each storage driver is one module behind the small interface in `driver.py`. Names of images are not known here.
"""
