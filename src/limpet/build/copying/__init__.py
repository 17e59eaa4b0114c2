"""copying: COPY and ADD: where files come from, what their digest is, and the layer that they become.

context   the build context, or the root of a stage or an image; `archive`: what ADD unpacks
grouped   the digest of what is copied, by directories, so that what did not change is known
digests   what earlier builds found out about files; `ahead` finds it out while a base is brought in
copy      the layer; `place`: what is where in the image; `modes`: --chmod
"""
