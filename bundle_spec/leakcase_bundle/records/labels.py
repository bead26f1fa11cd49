"""What the blocks of the heap are, told by labels: their contents never leave the host."""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word
from leakcase_bundle.strings import SymbolToken


@record("heap.labels")
class HeapLabels:
    """What a sample of the blocks in use holds, by size of chunk; entry i of each list goes
    together.

    Classes of size are those of `heap.sizes`; the ones with most bytes are listed, ascending. The
    sample is systematic over the heap's addresses. Each block of it has one label: what its words
    and bytes look like, of which only the counts are told. What is left of `sampled_chunks` is of
    no one kind.
    """

    look: int = says("Its number; `heap.classes` of the same look carries the same.")
    taken_ns: int
    chunk_bytes: list[int] = says("The smallest size of the class.")
    in_use_chunks: list[int] = says("All of the class, counted in the same walk.")
    in_use_bytes: list[int]
    sampled_chunks: list[int]
    object_chunks: list[int] = says("An object of a C++ class that has virtual functions.")
    text_chunks: list[int] = says("Printable text in UTF-8.")
    pointer_chunks: list[int] = says("Addresses of mapped memory, at least half of all words.")
    entropy_chunks: list[int] = says("As good as random: compressed, encrypted, hashes, pictures.")
    zero_chunks: list[int] = says("Nothing but zeros.")
    method: str = word("heap_method", "Both give the same numbers.")
    read_bytes: Optional[int] = says("How much of the target's memory was read.", default=None)
    duration_ns: Optional[int] = None


@record("heap.classes")
class HeapClasses:
    """C++ classes with virtual functions by how many objects there are; entry i of each list goes
    together, most objects first.

    An object begins with the address of its class's table of virtual functions, before which the
    class's type information with its name stands (Itanium C++ ABI, 2.9): that needs no symbols.
    A name occurs once for each class of size.
    """

    look: int
    taken_ns: int
    source: str = word(
        "class_source",
        "blocks: the blocks of glibc's malloc, by their first words. words: all anonymous memory, "
        "word by word, for other allocators: without sizes, and with what is left of objects that "
        "are gone.",
    )
    exact: bool = says("All of the memory was looked at; else counts are scaled up from a sample.")
    names: list[SymbolToken] = says("As the C++ ABI mangles the name of a type.")
    counts: list[int]
    chunk_bytes: Optional[list[int]] = says(
        "The smallest size of the class of chunks, as in `heap.sizes`.", default=None
    )
    sizes_bytes: Optional[list[int]] = says("The chunks of these objects together.", default=None)
    folded_names: Optional[int] = says(
        "Entries with fewer objects, of which only the sum is told.", default=None
    )
    folded_count: Optional[int] = None
    read_bytes: Optional[int] = says("How much of the target's memory was read.", default=None)
    duration_ns: Optional[int] = None
