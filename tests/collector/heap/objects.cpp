// A program whose blocks are known: objects of many kinds of classes, text, zeros, random bytes,
// pointers. It prints "ready", and for every line that it reads it adds objects and prints "ready".
// With an argument, so many threads make and delete objects of one more class all the time.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace acme {

struct Base {
    virtual ~Base() {}
    virtual int run() { return 1; }
    long fields[5] = {};
};

struct Second {
    virtual ~Second() {}
    virtual int go() { return 2; }
    long fields[3] = {};
};

struct Session : Base {
    int run() override { return 3; }
    char more[160] = {};
};

struct Both : Base, Second {
    int run() override { return 4; }
    int go() override { return 5; }
    long more[20] = {};
};

struct Shared : virtual Base {
    int run() override { return 6; }
    long more[70] = {};
};

template <class T> struct Holder : Base {
    int run() override { return 7; }
    T value[3];
    char more[300] = {};
};

}  // namespace acme

namespace {

struct Hidden : acme::Base {
    int run() override { return 8; }
    long more[50] = {};
};

struct Passing : acme::Base {
    int run() override { return 9; }
    char more[110] = {};
};

void churn()
{
    static constexpr size_t most = 3000;
    std::vector<acme::Base *> mine(most);
    for (size_t i = 0;; i = (i * 7 + 1) % most) {
        delete mine[i];
        mine[i] = new Passing();
        free(malloc(24 + i));
    }
}

}  // namespace

// Without virtual functions: an object of it cannot be told from other bytes.
struct Plain {
    long fields[90];
};

static std::vector<void *> kept;

template <class T> static void add(int count)
{
    for (int i = 0; i < count; i++)
        kept.push_back(new T());
}

static void *block(size_t size, const void *pattern, size_t length)
{
    char *made = static_cast<char *>(malloc(size));
    for (size_t i = 0; i < size; i++)
        made[i] = static_cast<const char *>(pattern)[i % length];
    kept.push_back(made);
    return made;
}

static uint64_t random_word()
{
    static uint64_t state = 88172645463325252u;  // Marsaglia, "Xorshift RNGs"
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void add_blocks(int count)
{
    static const char text[] = "Zqhiddentext, Grüße an alle";
    for (int i = 0; i < count; i++) {
        block(1192, text, sizeof text - 1);
        kept.push_back(calloc(1, 1400));
        void *random = block(1608, "", 1);
        for (int at = 0; at < 1608; at += 8) {
            uint64_t word = random_word();
            memcpy(static_cast<char *>(random) + at, &word, 8);
        }
        void **pointers = static_cast<void **>(block(1800, "", 1));
        for (int at = 0; at < 225; at++)
            pointers[at] = kept[(7 * i + at) % kept.size()];
        // Text of a secret behind a number: of no one kind.
        char *mixed = static_cast<char *>(block(2008, "", 1));
        for (int at = 0; at + 48 < 2008; at += 48) {
            mixed[at] = static_cast<char>(at);
            memcpy(mixed + at + 17, "Zqhiddenmixed", 14);
        }
        new (block(sizeof(Plain), "", 1)) Plain{{i}};
    }
}

int main(int count, char **arguments)
{
    // What it reads into would else be allocated after it said that it is ready.
    static char input[BUFSIZ];
    setvbuf(stdin, input, _IOFBF, sizeof input);
    kept.reserve(1 << 20);
    add<acme::Session>(2000);
    add<acme::Both>(301);
    add<acme::Shared>(53);
    add<acme::Holder<std::string>>(71);
    add<acme::Holder<long>>(11);
    add<Hidden>(41);
    add_blocks(500);
    // Freed ones do not count, be they merged or kept by the thread for itself.
    std::vector<acme::Session *> gone;
    for (int i = 0; i < 400; i++)
        gone.push_back(new acme::Session());
    for (acme::Session *one : gone)
        delete one;
    for (int i = count > 1 ? atoi(arguments[1]) : 0; i > 0; i--)
        std::thread(churn).detach();
    for (;;) {
        puts("ready");
        fflush(stdout);
        if (getchar() == EOF)
            return 0;
        add<acme::Session>(617);
        add<Hidden>(13);
        add_blocks(10);
    }
}
