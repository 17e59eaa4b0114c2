"""store: where everything lies on disk, and which facts are true. It knows names and bytes, not what they mean.

    <root>/                         /var/lib/limpet, or LIMPET_ROOT, or --root
      state.db                      the facts (`db.py` has the tables)
      lock                          flock: shared while a command adds things, exclusive while one collects garbage
      blobs/sha256/<hex>            what a registry sent, to the byte: manifests, configs, compressed layers
      layers/<hex of diff ID>/      one directory a layer; the storage driver (`layers/`) owns what is in it
      containers/<id>/              config.json, upper, work, log, status
      volumes/<name>/_data
      caches/<id>/                  what `RUN --mount=type=cache` keeps (`build/cachemounts.py`), and what ADD fetched
      builds/<time>-<pid>.log       what the newest builds wrote (`build/logs.py`)
      partial/<algorithm>-<hex>     the beginning of a blob whose download was cut off; the next pull goes on
      tmp/<random>                  things being made: no row names them, all of it is garbage after a crash
    <run>/                          /run/limpet, or LIMPET_RUN: what a reboot clears
      <container id>/               sockets and locks of a running container

The order of a write is always: temporary name, fsync, rename, row. The order of a delete is the reverse. So a kill
between any two steps leaves the old or the new state, and at most files that no row names: garbage, which `collect`
takes. `faults.reach(...)` marks these steps for the tests that kill the product at each of them.
"""
