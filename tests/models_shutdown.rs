//! Three ways to serve (`--model`): in each of them a worker leaves, and the server ends,
//! without cutting a client.
