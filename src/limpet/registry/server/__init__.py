"""The distribution protocol, server side: one module each for routes, storage, uploads, manifests and what guards them.

Storage and its collection are plain blocking code without HTTP; the rest is asyncio and calls them in threads.
"""
