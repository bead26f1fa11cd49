/*
 * A native addon for Node.js: store() forgets a copy of a message. What it needs of Node-API, whose
 * ABI is stable, is declared here: not every package of Node.js has headers.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);

int napi_create_function(napi_env, const char *name, size_t length, napi_callback, void *data,
                         napi_value *result);
int napi_set_named_property(napi_env, napi_value object, const char *name, napi_value);

enum { MESSAGE_BYTES = 1200, PASSING_BYTES = 333 };

__attribute__((noinline)) char *copy_message(void)
{
    char *copy = malloc(MESSAGE_BYTES);

    memset(copy, 'm', MESSAGE_BYTES);
    return copy;
}

static napi_value store(napi_env env, napi_callback_info info)
{
    char *volatile forgotten = copy_message();
    void *volatile passing = malloc(PASSING_BYTES);

    (void)env, (void)info, (void)forgotten;
    free(passing);
    return NULL;
}

napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
    napi_value function;

    napi_create_function(env, "store", 5, store, NULL, &function);
    napi_set_named_property(env, exports, "store", function);
    return exports;
}
