/* The plainest pre-fork echo server in C, to compare with: socket, bind,
 * listen, fork, and in each child accept, read, write, close. It replaces a
 * child that dies, and that is all: no drain, no time-outs, no log.
 *
 *   cc -O2 -o plain plain.c && ./plain PORT WORKERS
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void serve(int listener)
{
    static char buffer[65536];

    for (;;) {
        int client = accept(listener, NULL, NULL);
        ssize_t length;

        if (client < 0)
            continue;
        while ((length = read(client, buffer, sizeof buffer)) > 0) {
            ssize_t sent = 0;

            while (sent < length) {
                ssize_t n = write(client, buffer + sent, length - sent);
                if (n < 0)
                    break;
                sent += n;
            }
        }
        close(client);
    }
}

static void spawn(int listener)
{
    pid_t pid = fork();

    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (pid == 0)
        serve(listener);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    if (argc != 3) {
        fprintf(stderr, "usage: plain PORT WORKERS\n");
        return 2;
    }
    address.sin_port = htons(atoi(argv[1]));
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("listen");
        return 1;
    }
    for (int i = atoi(argv[2]); i > 0; i--)
        spawn(listener);
    puts("listening");
    fflush(stdout);
    while (wait(NULL) > 0)
        spawn(listener);
    return 1;
}
