// Asks operator new for more than there is, three times, once a byte has come in.
#include <cstdio>
#include <new>
#include <unistd.h>

int main()
{
    char byte;
    int caught = 0;

    puts("up");
    fflush(stdout);
    if (read(0, &byte, 1) != 1)
        return 1;
    for (int i = 0; i < 3; i++) {
        try {
            char *volatile p = new char[1UL << 46];
            p[0] = 1;
        } catch (const std::bad_alloc &) {
            caught++;
        }
    }
    puts("done");
    fflush(stdout);
    return read(0, &byte, 1) < 0 || caught == 0;
}
