/* Frames of aarch64, without any library: leaf functions, deep calls, a stack that grows by a
   variable amount, calls through pointers. Return addresses are signed (PAC). */

typedef int (*combine)(int, int);

static volatile int kept;

__attribute__((noinline)) static int leaf(int left, int right)
{
    return left * 3 + right;
}

__attribute__((noinline)) static int spill(combine with, int size)
{
    volatile int room[24];
    for (int index = 0; index < 24; index++)
        room[index] = with(index, size);
    return room[size % 24];
}

__attribute__((noinline)) static int grown(int size)
{
    volatile char *room = __builtin_alloca((unsigned long)size);
    for (int index = 0; index < size; index += 9)
        room[index] = (char)index;
    return spill(leaf, size) + room[0];
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile int room[3];
    room[depth % 3] = depth;
    int found = depth ? deep(depth - 1) : grown(50);
    return found + room[depth % 3];
}

__attribute__((noinline)) static void work(void)
{
    for (int round = 0; round < 100; round++)
        kept += deep(3 + round % 4);
}

__asm__(".globl _start\n"
        ".type _start, %function\n"
        "_start:\n"
        ".cfi_startproc\n"
        ".cfi_undefined x30\n"
        "mov x29, #0\n"
        "mov x30, #0\n"
        "bl run\n"
        "brk #0\n"
        ".cfi_endproc\n");

__attribute__((used)) static void run(void)
{
    work();
    __builtin_trap();
}
