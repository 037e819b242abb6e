//! What a worker narrates: accept, recv, send, poll, shutdown, close.
