"""The only door to the machine: nothing else in the collector opens, runs, signals or waits.

=============== =========================================================================
module          what it answers
=============== =========================================================================
`door`          reads under /proc, /sys and the host's root; files of the target's own root
`os_errors`     which typed exception an errno becomes
`files`         a small file read again and again; random access into a target's file
`memory`        the target's memory, read from outside without bringing a page in
`identity`      is this still the same process, the same program, and what kind of process
`clock`         monotonic and wall time, the sampling rhythm, our own CPU time and memory
`signals`       the user's wish to stop, as something that can be waited for
`priority`      making ourselves cheap for the host
`commands`      running a program of the host
`ownership`     files that we create, for the user who invoked us
`modules`       the files that a process has mapped, opened as they were mapped
`elf*`          what an ELF file says about itself
`allocator`     whose malloc the process uses
`runtime`       which language runtime it hosts
`packages`      which distribution package a file of the target came from
=============== =========================================================================

Everything here raises only the exceptions of `leakcase_collector.errors`.
"""
