// Blocks that are referred to in every way that a program has, and blocks that are lost in every
// way. Prints how many were lost and their chunks' bytes, then waits; under LeakSanitizer or
// Valgrind it has them look instead.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>
#include <malloc.h>
#include <pthread.h>
#include <unistd.h>
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define VALGRIND_DO_LEAK_CHECK
#define RUNNING_ON_VALGRIND 0
#endif
extern "C" void __lsan_do_leak_check(void) __attribute__((weak));

static bool losing;
static long lost_blocks, lost_bytes;

// With its header; a block with a mapping of its own has no neighbour to share 8 bytes with.
static long chunk_bytes(void *block)
{
    long size = malloc_usable_size(block);
    return size + (size > 200000 ? 16 : 8);
}

__attribute__((noinline)) static void *take(size_t size)
{
    void *block = malloc(size);
    memset(block, 0, size);
    if (losing) {
        lost_blocks++;
        lost_bytes += chunk_bytes(block);
    }
    return block;
}

__attribute__((noinline)) static void give(void *block)
{
    if (losing && block) {
        lost_blocks--;
        lost_bytes -= chunk_bytes(block);
    }
    free(block);
}

void *operator new(size_t size) { return take(size); }
void operator delete(void *block) noexcept { give(block); }
void operator delete(void *block, size_t) noexcept { give(block); }

struct Node {
    Node *next;
    long content[4];
};

static Node *chain(int length)
{
    Node *first = nullptr;
    for (int i = 0; i < length; i++) {
        Node *node = (Node *)take(sizeof(Node));
        node->content[0] = i;
        node->next = first;
        first = node;
    }
    return first;
}

static Node *ring(int length)
{
    Node *first = chain(length), *last = first;
    while (last->next)
        last = last->next;
    return last->next = first;
}

struct Left {
    virtual ~Left() {}
    long left = 1;
};
struct Right {
    virtual ~Right() {}
    long right = 2;
};
struct Session : Left, Right {
    std::string name;
    std::map<int, std::string> seen;
    std::vector<std::unique_ptr<Left>> parts;
    std::list<long> sizes;
    explicit Session(int number) : name("session with a name beyond the short ones " + std::to_string(number))
    {
        for (int i = 0; i < 20; i++) {
            seen[i] = std::string(40, 'a' + i);
            parts.push_back(std::make_unique<Left>());
            sizes.push_back(i);
        }
    }
};

static void *build(int which, int count)
{
    switch (which) {
    case 0: return chain(count);
    case 1: return ring(count);
    case 2: return new Session(count);
    case 3: return (char *)take(64 + count) + 24;              // within the block
    case 4: return static_cast<Right *>(new Session(count));   // a base that is not at the start
    case 5: {                                                  // a block with a mapping of its own
        Node **table = (Node **)take(300000);
        for (int i = 0; i < 1000; i++)
            table[7 * i] = chain(2);
        return table;
    }
    }
    return nullptr;
}
static const int kinds = 6;

static void *volatile global[kinds];
static thread_local void *volatile own[kinds];
static std::map<int, Session *> sessions;
static pthread_barrier_t ready;
static int turn;

__attribute__((noinline)) static void lose(int count)
{
    losing = true;
    for (int which = 0; which < kinds; which++)
        build(which, count);
    losing = false;
}

__attribute__((noinline)) static void wipe(void)
{
    char space[16384];
    memset(space, 0, sizeof space);
    asm volatile("" : : "r"(space) : "memory");
}

static void *work(void *argument)
{
    void *volatile held[kinds];
    while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != (int)(intptr_t)argument)
        usleep(1000);
    for (int which = 0; which < kinds; which++) {
        held[which] = build(which, 200);
        own[which] = build(which, 300);
    }
    lose(500 + (int)(intptr_t)argument);
    wipe();
    __atomic_add_fetch(&turn, 1, __ATOMIC_RELEASE);
    pthread_barrier_wait(&ready);
    for (;;)
        pause();
    return (void *)held[0];
}

int main(void)
{
    const int threads = 4;
    void *volatile held[kinds];
    pthread_barrier_init(&ready, nullptr, threads + 1);
    for (int which = 0; which < kinds; which++) {
        global[which] = build(which, 100000);
        own[which] = build(which, 400);
        held[which] = build(which, 500);
    }
    for (int i = 0; i < 50; i++)
        sessions[i] = new Session(i);
    for (int i = 1; i <= 20; i++)
        lose(50 * i);
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        pthread_create(&thread, nullptr, work, (void *)(intptr_t)i);
    }
    pthread_barrier_wait(&ready);
    usleep(50000);
    wipe();
    printf("%ld %ld\n", lost_blocks, lost_bytes);
    fflush(stdout);
    if (__lsan_do_leak_check)
        __lsan_do_leak_check();
    if (RUNNING_ON_VALGRIND) {
        VALGRIND_DO_LEAK_CHECK;
        _exit(0);
    }
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    _exit(held[0] == nullptr);
}
