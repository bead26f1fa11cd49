// Keeps 25 MB, lets as much go, and prints live, committed, stacks, collections.
package main

import (
	"fmt"
	"os"
	"runtime"
)

var kept [][]byte

func main() {
	for i := 0; i < 25_000; i++ {
		kept = append(kept, make([]byte, 1000))
		_ = append([]byte(nil), make([]byte, 1000)...)
	}
	kept = append(kept, make([]byte, 1_000_000))
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Println(m.HeapAlloc, m.HeapSys-m.HeapReleased+m.StackInuse, m.StackInuse, m.NumGC)
	os.Stdin.Read(make([]byte, 1))
}
