"""A server that names a fault proxy's port as its own."""

from contextlib import closing

from fault_proxy import FaultProxy
from redis_servers import free_port, start_server


def start_member(ending, binary, *options, announce=None):
    """Start a server that is to be one of several.

    Args:
        ending: The :class:`contextlib.ExitStack` that closes what is started.
        binary: Path of the program.
        options: More of its command line.
        announce: The option that makes the server tell others another port than its own, to have a proxy there.

    Returns:
        The server and its proxy, or the server and None.
    """
    if announce is None:
        return ending.enter_context(closing(start_server(binary, *options))), None
    port = free_port()
    proxy = ending.enter_context(closing(FaultProxy(port)))
    server = start_server(binary, *options, announce, str(proxy.port), port=port)
    return ending.enter_context(closing(server)), proxy
