# fork_per_client.c in Perl, for lesson 26 where no C compiler is: socket, bind,
# listen, and then accept, fork, accept, fork.
#
#   perl fork_per_client.pl PORT
#
# Each child says on stderr that it serves. PORT 0: the kernel chooses.
use strict;
use warnings;
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY);

sub serve {
    my ($client) = @_;
    while (sysread($client, my $bytes, 65536)) {
        for (my $sent = 0; $sent < length $bytes;) {
            $sent += syswrite($client, $bytes, length($bytes) - $sent, $sent) || return;
        }
    }
}

die "usage: fork_per_client.pl PORT\n" if @ARGV != 1;
$SIG{CHLD} = 'IGNORE';    # The kernel reaps the children.
$SIG{PIPE} = 'IGNORE';
$| = 1;
socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1);
setsockopt($listener, IPPROTO_TCP, TCP_NODELAY, 1);
bind($listener, pack_sockaddr_in($ARGV[0], INADDR_LOOPBACK)) or die "bind: $!\n";
listen($listener, 1024) or die "listen: $!\n";
print "listening on 127.0.0.1:", (unpack_sockaddr_in(getsockname $listener))[0], "\n";
for (;;) {
    accept(my $client, $listener) or next;
    my $child = fork;

    if (defined $child && $child == 0) {
        close($listener);
        syswrite(STDERR, "process $$ serves a client\n");
        serve($client);
        exit 0;
    }
    close($client);    # The child has it.
}
