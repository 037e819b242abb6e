/* An echo server that forks a process for each client, when the client has
 * connected: socket, bind, listen, and then accept, fork, accept, fork. The
 * child serves the client and exits. For lesson 26.
 *
 *   cc -O2 -o fork_per_client fork_per_client.c && ./fork_per_client PORT
 *
 * Each child says on stderr that it serves. PORT 0: the kernel chooses.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void serve(int client)
{
    char buffer[65536];
    ssize_t length;

    while ((length = read(client, buffer, sizeof buffer)) > 0)
        for (ssize_t sent = 0, n; sent < length; sent += n)
            if ((n = write(client, buffer + sent, length - sent)) < 0)
                return;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    if (argc != 2) {
        fprintf(stderr, "usage: fork_per_client PORT\n");
        return 2;
    }
    address.sin_port = htons(atoi(argv[1]));
    signal(SIGCHLD, SIG_IGN); /* The kernel reaps the children. */
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("listen");
        return 1;
    }
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int client = accept(listener, NULL, NULL);

        if (client < 0)
            continue;
        if (fork() == 0) {
            close(listener);
            fprintf(stderr, "process %d serves a client\n", (int)getpid());
            serve(client);
            _exit(0);
        }
        close(client); /* The child has it. */
    }
}
