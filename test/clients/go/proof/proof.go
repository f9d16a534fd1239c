// Package proof prints what a client program proved, one line each, and keeps the shared expectations of the client tests.
package proof

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

// Client names the program in its lines; Tag makes its topics and groups unique to this run.
var (
	Client string
	Tag    = fmt.Sprintf("%x", time.Now().UnixNano()/1e6&0xffffffff)
	failed int
)

// Broker is host:port of the broker under test.
func Broker() string {
	if len(os.Args) > 1 {
		return os.Args[1]
	}
	return "127.0.0.1:9092"
}

// Factor is the replication factor of the topics that the checks make, from FACTOR: how many brokers are under test.
func Factor() int16 {
	n, err := strconv.ParseInt(os.Getenv("FACTOR"), 10, 16)
	if err != nil || n < 1 {
		return 1
	}
	return int16(n)
}

// Name returns a topic or group name of this client and run.
func Name(s string) string { return "c-" + Client + "-" + s + "-" + Tag }

// That runs one check: fn returns what it proved, or an error. A panic of a client library is a failure of this check only.
func That(name string, fn func() (string, error)) {
	begin := time.Now()
	what, err := func() (s string, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		return fn()
	}()
	if err != nil {
		failed++
		fmt.Printf("FAIL %s/%s %v\n", Client, name, err)
		return
	}
	fmt.Printf("ok %s/%s %s (%d ms)\n", Client, name, what, time.Since(begin).Milliseconds())
}

// Done ends the program.
func Done() {
	fmt.Printf("done %s\n", Client)
	if failed > 0 {
		os.Exit(1)
	}
}

// Text returns n bytes that compress well but not to nothing, the same for the same seed.
func Text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "event %d of user-%d; ", r.Uint32N(1000), r.Uint32N(50))
	}
	return b.Bytes()[:n]
}

// Noise returns n bytes that do not compress.
func Noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 9))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
