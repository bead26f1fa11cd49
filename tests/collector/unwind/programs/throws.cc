// Exceptions through frames that hold objects, virtual calls and allocations of C++.

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Shape {
    virtual ~Shape() = default;
    virtual int area(int depth) = 0;
};

struct Square : Shape {
    std::vector<std::string> names;
    int area(int depth) override
    {
        names.push_back("square number " + std::to_string(depth));
        if (depth == 0)
            throw std::runtime_error(names.back());
        Square inner;
        return inner.area(depth - 1) + 1;
    }
};

int main()
{
    std::map<std::string, int> seen;
    for (int round = 0; round < 1000; round++) {
        try {
            Square outer;
            seen["area"] += outer.area(5);
        } catch (const std::exception &error) {
            seen[error.what()]++;
        }
    }
    return 0;
}
