/* Nothing but innocent traffic. */
#include "churn.h"

int main(int argc, char **argv)
{
    sample_begin(argc, argv, "stable");
    churn_begin();
    while (sample_tick())
        churn_tick();
    return sample_end(0, 0);
}
