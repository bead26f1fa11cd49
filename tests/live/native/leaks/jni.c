/* What Leak.java calls: storeRecord() forgets a copy of a record. */
#include <jni.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_BYTES = 1500, PASSING_BYTES = 100 };

__attribute__((noinline)) char *copy_record(int number)
{
    char *copy = malloc(RECORD_BYTES);

    memset(copy, number, RECORD_BYTES);
    return copy;
}

JNIEXPORT void JNICALL Java_Leak_storeRecord(JNIEnv *env, jclass class, jint number)
{
    char *volatile forgotten = copy_record(number);
    void *volatile passing = malloc(PASSING_BYTES);

    (void)env, (void)class, (void)forgotten;
    free(passing);
}
