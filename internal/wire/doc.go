// Package wire owns the outer shape of Kafka's protocol over franz-go's kmsg: frame sizes, request and
// response headers, which version of which API is flexible, and decoding with a bound on memory.
//
// It never touches a socket, holds no state and decides nothing about who may ask what.
//
// Anybody runs it; everything here is a pure function of its input and safe for concurrent use.
//
// Invariants: no input panics; before kmsg allocates anything, a walk over the body has proved that the
// body is complete and added up what decoding it will allocate; record bytes of a Produce are a slice of
// the frame, never a copy.
//
// Read header.go first, then schema.go and walk.go.
package wire
