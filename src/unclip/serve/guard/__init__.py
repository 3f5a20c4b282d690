"""Guards of the server: keys, hosts, origins, limits of bodies, rates, headers. ASGI pieces that know no queue."""
