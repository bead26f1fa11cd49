"""From copied registers and a piece of copied stack to the calls that led there.

================ ========================================================================
module           what it answers
================ ========================================================================
`encoding`       numbers and pointers as DWARF writes them
`expressions`    what a DWARF expression computes
`rows`           by which rule each register is found again, from a function's call frame program
`call_frames`    which such program covers an address of an ELF file (.eh_frame)
`machines`       which registers x86-64 and aarch64 have, and how they make frames
`modules`        which file an address belongs to, and where that file is mapped
`careful`        one stack, frame by frame, with all registers: every rule there is
`unwinder`       many stacks, fast: the common rules only, remembered for each address
================ ========================================================================

All of it may come from someone hostile: rules that are damaged end a stack with a word that says
so, they raise nothing that leaves this package and never loop.
"""
