/* Keeps a record of each job for good, in a function that is compiled into its caller. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct record {
	struct record *next;
	char text[120];
};

static struct record *records;

static inline __attribute__((always_inline)) struct record *new_record(unsigned job)
{
	struct record *made = malloc(sizeof *made);

	if (made)
		memset(made->text, (int)(job % 251), sizeof made->text);
	return made;
}

static __attribute__((noinline)) void note_job(unsigned job)
{
	struct record *made = new_record(job);

	if (!made)
		_exit(1);
	made->next = records;
	records = made;
}

int main(void)
{
	for (unsigned job = 0;; job++) {
		char *work = malloc(128);

		if (!work)
			return 1;
		memset(work, (int)(job % 253), 128);
		if (job % 3 == 0)
			note_job(job);
		free(work);
		usleep(300);
	}
}
