// A small HTTP service with a bounded cache: service PORT nothing|objects. With "objects" it
// forgets sessions on Go's heap, 4 MB a second.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

type session struct{ content [1000]byte }

var sessions []*session
var cache [500][]byte

func main() {
	served := 0
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		served++
		cache[served%500] = make([]byte, 2000)
		fmt.Fprintf(w, `{"pid": %d}`, os.Getpid())
	})
	go http.ListenAndServe("127.0.0.1:"+os.Args[1], nil)
	for {
		time.Sleep(50 * time.Millisecond)
		for i := 0; i < 200 && os.Args[2] == "objects"; i++ {
			one := &session{}
			one.content[0] = 1 // memory that nobody writes to is not resident
			sessions = append(sessions, one)
		}
	}
}
