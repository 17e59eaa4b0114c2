"""What every HTTP server of limpet shares: listening, workers, limits, files and bodies in big pieces, the log.

Knows nothing of registries or engines. Only servers import it: aiohttp alone costs 150 ms.
"""
