//! What the client narrates: socket, connect, send, recv, shutdown, close.
