// Forgets packets by Go's own memory management; a line is answered by how many so far.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

var handled int64
var packets [][]byte

func main() {
	go func() {
		for {
			packets = append(packets, make([]byte, 900))
			atomic.AddInt64(&handled, 1)
			time.Sleep(time.Millisecond)
		}
	}()
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(atomic.LoadInt64(&handled))
	}
}
