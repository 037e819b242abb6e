/* The plainest pre-fork echo server in C, to compare with: socket, bind,
 * listen, fork, and in each child accept, read, write, close. It replaces a
 * child that dies, and that is all: no drain, no time-outs, no log.
 *
 *   cc -O2 -o plain plain.c && ./plain PORT WORKERS
 *
 * With a third argument, epoll, each child serves all its clients in one
 * thread; bytes that find no room are lost.
 *
 *   ./plain PORT WORKERS epoll
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
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

static void serve_many(int listener)
{
    static char buffer[65536];
    struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = listener }, events[256];
    int epoll = epoll_create1(0);

    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);

        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            ssize_t length;

            if (fd == listener) {
                struct epoll_event client = { .events = EPOLLIN };

                if ((client.data.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) < 0)
                    continue;
                epoll_ctl(epoll, EPOLL_CTL_DEL, listener, NULL);
                epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
                epoll_ctl(epoll, EPOLL_CTL_ADD, client.data.fd, &client);
            } else if ((length = read(fd, buffer, sizeof buffer)) <= 0 || write(fd, buffer, length) < 0)
                close(fd);
        }
    }
}

static int multiplexes;

static void spawn(int listener)
{
    pid_t pid = fork();

    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (pid == 0)
        (multiplexes ? serve_many : serve)(listener);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: plain PORT WORKERS [epoll]\n");
        return 2;
    }
    if ((multiplexes = argc == 4)) {
        struct rlimit limit;

        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        fcntl(listener, F_SETFL, O_NONBLOCK);
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
