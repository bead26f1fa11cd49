/* A tiny server that forgets the body of each request it has answered, so memory grows in steps.
 * The server is a thread; the main thread sends it a request every 1009 ms. */
#include <pthread.h>
#include <sys/socket.h>

#include "common.h"

#define BODY_BYTES 99991
#define PERIOD_NS (1009 * MILLISECOND_NS)

static int client_end, server_end;

static NOINLINE bool handle_request(void)
{
    char *body = malloc(BODY_BYTES); /* LEAK */
    if (body == NULL)
        return false;
    return sample_touch(body, BODY_BYTES);
}

static void *server(void *unused)
{
    char request;
    (void)unused;
    while (read(server_end, &request, 1) == 1) {
        char reply = handle_request() ? 'y' : 'n';
        if (write(server_end, &reply, 1) != 1)
            break;
    }
    return NULL;
}

static bool ask_server(void)
{
    char answer = 'r';
    if (write(client_end, &answer, 1) != 1 || read(client_end, &answer, 1) != 1 || answer != 'y')
        return sample_limit_reached();
    return true;
}

int main(int argc, char **argv)
{
    int ends[2];
    pthread_t thread;
    uint64_t leaked = 0;
    sample_begin(argc, argv, "request-leak");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        sample_die("socketpair");
    client_end = ends[0];
    server_end = ends[1];
    if (pthread_create(&thread, NULL, server, NULL) != 0)
        sample_die("pthread_create");
    pthread_setname_np(thread, "server");
    while (sample_tick())
        for (uint64_t due = sample_due(1, PERIOD_NS); leaked < due && ask_server();)
            leaked++;
    return sample_end(leaked * CHUNK_BYTES(BODY_BYTES), leaked);
}
