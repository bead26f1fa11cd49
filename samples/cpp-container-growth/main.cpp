// A table of sessions in which every request makes an entry and nothing is ever erased, beside a
// table that is kept to a bound.
#include <map>
#include <new>
#include <string>

#include "common.h"

namespace {

constexpr uint64_t sessions_per_second = 1009;
constexpr std::size_t state_bytes = 331;
constexpr std::size_t recent_at_most = 499;

// A node of libstdc++'s map (_Rb_tree_node) is 32 bytes of links and colour before the pair; the
// string keeps one byte more than its length, in a block of its own.
constexpr std::size_t node_bytes = 32 + sizeof(std::pair<const uint64_t, std::string>);
constexpr std::size_t resident_bytes = CHUNK_BYTES(node_bytes) + CHUNK_BYTES(state_bytes + 1);

using Table = std::map<uint64_t, std::string>;
Table recent;

// What a well-kept table does.
void note_recent(uint64_t number)
{
    recent.emplace(number, std::string(state_bytes, 'r'));
    if (recent.size() > recent_at_most)
        recent.erase(recent.begin());
}

}  // namespace

Table sessions;

NOINLINE bool add_session(uint64_t number)
{
    try {
        sessions.emplace(number, std::string(state_bytes, 's'));  // LEAK
    } catch (const std::bad_alloc &) {
        return sample_limit_reached();
    }
    return true;
}

int main(int argc, char **argv)
{
    uint64_t added = 0;
    sample_begin(argc, argv, "cpp-container-growth");
    for (uint64_t number = 0; number < recent_at_most; number++)
        note_recent(number);
    while (sample_tick())
        for (uint64_t due = sample_due(sessions_per_second, SECOND_NS);
             added < due && add_session(added); added++)
            note_recent(recent_at_most + added);
    return sample_end(added * resident_bytes, added);
}
