"""The direct path between processes: connections, and sessions that outlive them.

The modules config, address, frame, handshake, window, protocol and session are pure:
bytes and the time go in; bytes, events and the next timer come out.
"""
