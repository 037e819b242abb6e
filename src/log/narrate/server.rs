//! What the parent narrates: socket, bind, listen, fork, poll, kill, waitpid.
