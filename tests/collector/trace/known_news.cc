// Calls operator new and delete a known number of times, once a byte has come in.
#include <cstdio>
#include <new>
#include <unistd.h>

struct alignas(128) Wide {
    char bytes[300];
};

static void *volatile kept[1300];

int main()
{
    static char buffer[64];
    char byte;

    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    fputs("up\n", stdout);
    fflush(stdout);
    if (read(0, &byte, 1) != 1)
        return 1;
    for (int i = 0; i < 1000; i++)
        kept[i] = ::operator new(100 + i);
    for (int i = 0; i < 400; i++)
        ::operator delete(kept[i]);
    for (int i = 0; i < 53; i++)
        kept[1000 + i] = new char[500];
    for (int i = 0; i < 17; i++)
        delete[] static_cast<char *>(kept[1000 + i]);
    for (int i = 0; i < 29; i++)
        kept[1100 + i] = new Wide;
    for (int i = 0; i < 13; i++)
        delete static_cast<Wide *>(kept[1100 + i]);
    for (int i = 0; i < 31; i++)
        kept[1200 + i] = new (std::nothrow) char[64];
    fputs("done\n", stdout);
    fflush(stdout);
    return read(0, &byte, 1) < 0;
}
