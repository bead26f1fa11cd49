// Calls C 1,000 times a second, which forgets a packet; a line is answered by how often so far.
package main

/*
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) void *keep_packet(int number)
{
    void *packet = malloc(900);

    memset(packet, number, 900);
    return packet;
}
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

var handled int64

func handlePacket(number int64) {
	C.keep_packet(C.int(number))
	passing := C.malloc(300)
	C.free(passing)
}

func main() {
	go func() {
		for {
			for i := 0; i < 10; i++ {
				handlePacket(atomic.AddInt64(&handled, 1))
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(atomic.LoadInt64(&handled))
	}
}
