// Sessions are opened and closed all the time; every other one is never closed.
#include <array>
#include <new>

#include "common.h"

namespace {

constexpr uint64_t forgotten_per_second = 797;
constexpr std::size_t live_sessions = 1009;

class Session {
public:
    explicit Session(uint64_t number) : number_(number) { sample_touch(token_, sizeof token_); }
    virtual ~Session() = default;
    virtual uint64_t number() const { return number_; }

private:
    uint64_t number_;
    char token_[311];
};

constexpr std::size_t resident_bytes = CHUNK_BYTES(sizeof(Session));

std::array<Session *, live_sessions> live;

// Closes the session in a place and opens another there.
void renew_session(uint64_t number)
{
    Session *&place = live[number % live_sessions];
    delete place;
    place = new Session(number);
}

}  // namespace

NOINLINE bool open_session(uint64_t number)
{
    Session *session = new (std::nothrow) Session(number);  // LEAK
    return session != nullptr || sample_limit_reached();
}

int main(int argc, char **argv)
{
    uint64_t forgotten = 0;
    sample_begin(argc, argv, "cpp-object-leak");
    for (uint64_t number = 0; number < live_sessions; number++)
        renew_session(number);
    while (sample_tick())
        for (uint64_t due = sample_due(forgotten_per_second, SECOND_NS);
             forgotten < due && open_session(forgotten); forgotten++)
            renew_session(forgotten);
    return sample_end(forgotten * resident_bytes, forgotten);
}
