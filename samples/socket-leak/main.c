/* A server on loopback that never closes the connections its clients have finished with: they
 * stay in CLOSE_WAIT, each with the client's last words unread. It is its own client. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common.h"

#define CONNECTIONS_PER_SECOND 3

static struct sockaddr_in server_address;

static int listen_on_loopback(void)
{
    socklen_t length = sizeof server_address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    server_address.sin_family = AF_INET;
    server_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || bind(listener, (struct sockaddr *)&server_address, length) != 0 ||
        listen(listener, 7) != 0 ||
        getsockname(listener, (struct sockaddr *)&server_address, &length) != 0)
        sample_die("cannot listen on loopback");
    return listener;
}

static NOINLINE bool serve_connection(int listener)
{
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC); /* LEAK */
    return connection >= 0 || sample_limit_reached();
}

static bool visit(int listener)
{
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client < 0)
        return sample_limit_reached();
    if (connect(client, (struct sockaddr *)&server_address, sizeof server_address) != 0 ||
        write(client, "bye\n", 4) != 4)
        sample_die("cannot talk to itself on loopback");
    bool served = serve_connection(listener);
    close(client);
    return served;
}

int main(int argc, char **argv)
{
    uint64_t leaked = 0;
    sample_begin(argc, argv, "socket-leak");
    int listener = listen_on_loopback();
    while (sample_tick())
        for (uint64_t due = sample_due(CONNECTIONS_PER_SECOND, SECOND_NS);
             leaked < due && visit(listener);)
            leaked++;
    return sample_end(0, leaked);
}
