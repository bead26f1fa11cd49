// Objects of C++ that are forgotten among many that are not, for `make attribution`.
//
//     objects SEED [--seconds N]
//
// Sessions with a string each (32 bytes and more, on the heap) are made 20,000 times a second and
// kept for a moment in a map; two of a hundred are never taken out.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../../samples/common.h"

namespace {

class Session {
public:
    explicit Session(uint64_t number)
        : number_(number), name_("session number " + std::to_string(number) + " of a long run")
    {
    }
    virtual ~Session() = default;
    virtual uint64_t number() const { return number_; }

private:
    uint64_t number_;
    std::string name_;
};

uint64_t made;
std::map<uint64_t, Session *> open_sessions;
std::vector<Session *> served;

// The program's own work for each session: some 24 us.
void compute()
{
    uint64_t value = made;
    for (int i = 0; i < 18000; i++)
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    __asm__ volatile("" : : "r"(value) : "memory");
}

NOINLINE Session *open_session()
{
    return new Session(++made);
}

NOINLINE void serve_request()
{
    Session *session = open_session();
    open_sessions[session->number()] = session;
    served.push_back(session);
    compute();
}

NOINLINE void leak_session()
{
    Session *session = new Session(++made);
    open_sessions[session->number()] = session;
}

NOINLINE void close_served(size_t keep)
{
    while (served.size() > keep) {
        open_sessions.erase(served.front()->number());
        delete served.front();
        served.erase(served.begin());
    }
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    made = strtoull(argv[1], nullptr, 10) << 32;
    argv[1] = argv[0];
    sample_begin(argc - 1, argv + 1, "objects");
    uint64_t leaked = 0;
    while (sample_tick()) {
        for (int i = 0; i < 130; i++)
            serve_request();
        close_served(700);
        for (uint64_t due = sample_due(130, SECOND_NS); leaked < due; leaked++)
            leak_session();
    }
    // A session of 48 + 16, its string of 31 and more, its node in the map.
    uint64_t bytes = CHUNK_BYTES(sizeof(Session)) + CHUNK_BYTES(45) + CHUNK_BYTES(48);
    printf("{\"leaked\":{\"leak_session\":%llu},\"ended\":\"%s\"}\n",
           static_cast<unsigned long long>(leaked * bytes), sample.ended);
    return 0;
}
