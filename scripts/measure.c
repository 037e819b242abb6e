/* What scripts/figures.sh and scripts/compare.sh measure with: the plainest
 * client in C, and what Linux tells of processes in /proc.
 *
 *   measure echo PORT CONNECTIONS MESSAGES SIZE   kept connections, all at once:
 *                                                 echoes a second
 *   measure latency PORT MESSAGES SIZE            one connection: p50, p90, p99 of
 *                                                 an echo, in microseconds
 *   measure connect PORT CONNECTIONS              one after the other, an echo
 *                                                 each: connections a second
 *   measure stream PORT MEGABYTES SIZE PID        one connection that sends without a
 *                                                 pause, SIZE bytes a write, and takes
 *                                                 and checks what comes back meanwhile:
 *                                                 processor time of the server PID a
 *                                                 megabyte (10^6 bytes), in
 *                                                 microseconds; megabytes a second
 *   measure many PORT CONNECTIONS ECHOES WAYS PID so many kept connections, 64 bytes
 *                                                 on all of them in turn, WAYS of them
 *                                                 at once: processor time of the
 *                                                 server PID an echo, in microseconds;
 *                                                 its memory for the connections, in
 *                                                 kB, before they have sent anything
 *   measure respawn PARENT TIMES                  kills a child, waits for the
 *                                                 next one: microseconds, a line
 *                                                 each
 *   measure run COMMAND ARGUMENT...               runs a command in a session of
 *                                                 its own, and inherits its
 *                                                 orphans, so that none is missed:
 *   measure cpu PID                               processor time of a process and
 *                                                 all below it so far, in ms
 *   measure pss PID                               their memory (proportional set
 *                                                 size), in kB
 *   measure count PID                             how many they are
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int dial(const char *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_port = htons(atoi(port));
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void ping(int fd, const char *message, char *answer, size_t size)
{
    size_t got = 0;

    if (write(fd, message, size) != (ssize_t)size)
        fail("write");
    while (got < size) {
        ssize_t n = read(fd, answer + got, size - got);
        if (n <= 0)
            fail("read");
        got += n;
    }
    if (memcmp(message, answer, size)) {
        fprintf(stderr, "the answer differs\n");
        exit(1);
    }
}

static void echo(const char *port, int connections, int messages, size_t size)
{
    char *message = malloc(size), *answer = malloc(size);
    double start = now();
    int status;

    memset(message, 'x', size);
    for (int i = 0; i < connections; i++)
        if (fork() == 0) {
            int fd = dial(port);
            for (int j = 0; j < messages; j++)
                ping(fd, message, answer, size);
            exit(0);
        }
    while (wait(&status) > 0)
        if (status)
            exit(1);
    printf("%.0f\n", connections * (double)messages / (now() - start));
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void latency(const char *port, int messages, size_t size)
{
    char *message = malloc(size), *answer = malloc(size);
    double *took = malloc(messages * sizeof *took);
    int fd = dial(port);

    if (messages < 1) {
        fprintf(stderr, "no messages, no latency\n");
        exit(2);
    }
    memset(message, 'x', size);
    for (int i = 0; i < messages; i++) {
        double start = now();
        ping(fd, message, answer, size);
        took[i] = (now() - start) * 1e6;
    }
    qsort(took, messages, sizeof *took, ascending);
    printf("%.1f %.1f %.1f\n", took[messages / 2], took[messages * 9 / 10], took[messages * 99 / 100]);
}

static void connect_often(const char *port, int connections)
{
    double start = now();
    char answer[4];

    for (int i = 0; i < connections; i++) {
        int fd = dial(port);
        ping(fd, "ping", answer, 4);
        close(fd);
    }
    printf("%.0f\n", connections / (now() - start));
}

/* The children of a process, as the kernel lists them; returns how many. */
static int children(const char *parent, int *pids, int most)
{
    char path[64];
    FILE *file;
    int count = 0;

    snprintf(path, sizeof path, "/proc/%s/task/%s/children", parent, parent);
    if (!(file = fopen(path, "r")))
        return 0; /* it has ended meanwhile */
    while (count < most && fscanf(file, "%d", &pids[count]) == 1)
        count++;
    fclose(file);
    return count;
}

static void respawn(const char *parent, int times)
{
    int before[4096], after[4096];

    for (int i = 0; i < times; i++) {
        int count = children(parent, before, 4096), n;
        double start = now();

        if (count == 0) {
            fprintf(stderr, "process %s has no children\n", parent);
            exit(1);
        }
        kill(before[0], SIGKILL);
        do {
            if (now() - start > 5) {
                fprintf(stderr, "process %s has not replaced its child %d\n", parent, before[0]);
                exit(1);
            }
            usleep(20); /* leave the processor to those we watch */
            n = children(parent, after, 4096);
        } while (n != count || after[n - 1] == before[count - 1] || after[0] == before[0]);
        printf("%.0f\n", (now() - start) * 1e6);
        usleep(20000);
    }
}

/* Runs a command and waits until it and all that it leaves behind have ended. */
static int run(char **command)
{
    setsid(); /* httpd signals its whole group when it ends */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (fork() == 0) {
        execvp(command[0], command);
        fail(command[0]);
    }
    while (wait(NULL) > 0)
        ;
    return 0;
}

/* Calls `with` for the process and all below it, and adds up the results. */
static double sum(int pid, double (*with)(int))
{
    int pids[4096], count;
    char name[16];
    double total = with(pid);

    snprintf(name, sizeof name, "%d", pid);
    count = children(name, pids, 4096);
    for (int i = 0; i < count; i++)
        total += sum(pids[i], with);
    return total;
}

/* What the threads of a process have run so far, in ms: to the nanosecond, where utime and
 * stime are whole ticks, and of many processes that have run for less than one say 0. */
static double running(int pid)
{
    char path[320];
    unsigned long long ns;
    double total = 0;
    struct dirent *task;
    DIR *tasks;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/task", pid);
    if (!(tasks = opendir(path)))
        return 0;
    while ((task = readdir(tasks))) {
        if (task->d_name[0] == '.')
            continue; /* "..": its schedstat is the first thread's, once more */
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, task->d_name);
        if (!(file = fopen(path, "r")))
            continue;
        if (fscanf(file, "%llu", &ns) == 1)
            total += ns / 1e6;
        fclose(file);
    }
    closedir(tasks);
    return total;
}

/* Processor time of the process, and of its children that it has reaped, in ms. */
static double cpu(int pid)
{
    char path[64], line[1024];
    unsigned long long user, system, reaped_user, reaped_system;
    double ticks = sysconf(_SC_CLK_TCK) / 1000.0, own = running(pid);
    FILE *file;
    int ok;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (!(file = fopen(path, "r")))
        return 0;
    ok = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    if (!ok || sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu",
                      &user, &system, &reaped_user, &reaped_system) != 4)
        return 0;
    /* A kernel without schedstat; and threads that have ended stand in stat alone. */
    if ((user + system) / ticks > own)
        own = (user + system) / ticks;
    return own + (reaped_user + reaped_system) / ticks;
}

static double pss(int pid)
{
    char path[64], line[256];
    double kb = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    if (!(file = fopen(path, "r")))
        return 0;
    while (fgets(line, sizeof line, file) && sscanf(line, "Pss: %lf", &kb) != 1)
        ;
    fclose(file);
    return kb;
}

static void many(const char *port, int connections, int echoes, int ways, int server)
{
    struct rlimit limit;
    int *fds = malloc(connections * sizeof *fds);
    char message[64], answer[64];
    double memory, before;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    memset(message, 'x', sizeof message);
    memory = sum(server, pss);
    for (int i = 0; i < connections; i++)
        fds[i] = dial(port);
    usleep(300000); /* all are accepted */
    memory = sum(server, pss) - memory;
    before = sum(server, cpu);
    for (int done = 0, i = 0; done < echoes; i = i + ways < connections ? i + ways : 0) {
        int last = i + ways < connections ? i + ways : connections;
        for (int j = i; j < last; j++)
            if (write(fds[j], message, sizeof message) != sizeof message)
                fail("write");
        for (int j = i; j < last; j++, done++)
            for (size_t got = 0; got < sizeof answer;) {
                ssize_t n = read(fds[j], answer + got, sizeof answer - got);
                if (n <= 0)
                    fail("read");
                got += n;
            }
    }
    printf("%.2f %.0f\n", (sum(server, cpu) - before) * 1000 / echoes, memory);
}

/* The byte at each place of the stream. 251 is prime: bytes that come at a wrong place differ. */
static void pattern(char *buffer, size_t size, size_t place)
{
    for (size_t i = 0; i < size; i++)
        buffer[i] = (place + i) % 251;
}

static void send_stream(int fd, size_t bytes, size_t size)
{
    char *data = malloc(size + 251);

    pattern(data, size + 251, 0);
    for (size_t sent = 0; sent < bytes;) {
        size_t left = bytes - sent;
        ssize_t n = write(fd, data + sent % 251, left < size ? left : size);
        if (n <= 0)
            fail("write");
        sent += n;
    }
    shutdown(fd, SHUT_WR);
}

static void stream(const char *port, int megabytes, size_t size, int server)
{
    enum { ROOM = 1 << 20 };
    size_t bytes = megabytes * (size_t)1000000, got = 0;
    char *answer = malloc(ROOM), *expected = malloc(ROOM + 251);
    double before = sum(server, cpu), start = now();
    int fd = dial(port);
    ssize_t n;

    pattern(expected, ROOM + 251, 0);
    if (fork() == 0) {
        send_stream(fd, bytes, size);
        exit(0);
    }
    while ((n = read(fd, answer, ROOM)) > 0) {
        if (memcmp(answer, expected + got % 251, n)) {
            fprintf(stderr, "the answer differs\n");
            exit(1);
        }
        got += n;
    }
    if (got != bytes) {
        fprintf(stderr, "%zu bytes came back of %zu\n", got, bytes);
        exit(1);
    }
    wait(NULL);
    printf("%.1f %.0f\n", (sum(server, cpu) - before) * 1000 / megabytes, megabytes / (now() - start));
}

static double one(int pid)
{
    (void)pid;
    return 1;
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "echo"))
        echo(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    else if (argc == 5 && !strcmp(argv[1], "latency"))
        latency(argv[2], atoi(argv[3]), atoi(argv[4]));
    else if (argc == 4 && !strcmp(argv[1], "connect"))
        connect_often(argv[2], atoi(argv[3]));
    else if (argc == 6 && !strcmp(argv[1], "stream"))
        stream(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    else if (argc == 7 && !strcmp(argv[1], "many"))
        many(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoi(argv[6]));
    else if (argc == 4 && !strcmp(argv[1], "respawn"))
        respawn(argv[2], atoi(argv[3]));
    else if (argc >= 3 && !strcmp(argv[1], "run"))
        return run(argv + 2);
    else if (argc == 3 && !strcmp(argv[1], "cpu"))
        printf("%.0f\n", sum(atoi(argv[2]), cpu));
    else if (argc == 3 && !strcmp(argv[1], "pss"))
        printf("%.0f\n", sum(atoi(argv[2]), pss));
    else if (argc == 3 && !strcmp(argv[1], "count"))
        printf("%.0f\n", sum(atoi(argv[2]), one));
    else {
        fprintf(stderr, "usage: see the top of measure.c\n");
        return 2;
    }
    return 0;
}
