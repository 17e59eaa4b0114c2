"""Networks that are not the host's: bridges, macvlan, ipvlan, pasta; what they need in the kernel, and its end.

`wiring` is links and addresses, `firewall` is the rules, `hosts` the names, `upkeep` brings all of it in line with who
runs. `process` does that for a container that starts, in a process of its own: its libraries are 15 MB, and a monitor
has no database.
"""
