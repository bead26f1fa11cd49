"""Which of the types that grow are the program's own, and which can be looked for in it."""

from __future__ import annotations

from leakcase_analyzer.findings.base import ObjectTypes, TypeGrowth

#: Types that every program has many of; one of its own tells more, unless it is far smaller.
BUILT_IN = frozenset(
    """dict list tuple set frozenset str bytes bytearray int float complex bool function method cell
    type code frame generator coroutine weakref property module object traceback mappingproxy
    builtin_function_or_method method-wrapper wrapper_descriptor staticmethod classmethod""".split()
)
#: Java's, of which there are arrays of arrays as well.
PRIMITIVES = frozenset("boolean byte char double float int long short".split())
OF_THE_JDK = ("java.", "javax.", "jdk.", "sun.", "com.sun.")
#: Types of Python that its collector does not track: no list of all objects holds them.
UNTRACKED = frozenset({"str", "bytes", "int", "float", "complex", "bool", "bytearray"})
OWN_SHARE = 0.02


def is_own(name: str, runtime: str) -> bool:
    """Whether a type is none of its runtime's. Of Python's types those in C bear their module."""
    if runtime == "jvm":
        element = name.rstrip("[]")
        return not (element in PRIMITIVES or element.startswith(OF_THE_JDK))
    return name not in BUILT_IN and not (runtime == "cpython" and "." in name)


def own_type(types: ObjectTypes) -> TypeGrowth | None:
    """The program's own type that grows most, where it is not far less than the first."""
    own = next((one for one in findable_of(types) if is_own(one.name, types.runtime)), None)
    if own is None or own.growth_bytes < OWN_SHARE * types.types[0].growth_bytes:
        return None
    return own


def findable_of(types: ObjectTypes) -> list[TypeGrowth]:
    """Those of which there are more objects, and whose objects the runtime can list."""
    untracked = UNTRACKED if types.runtime == "cpython" else frozenset()
    return [one for one in types.types if one.count > 0 and one.name not in untracked]
