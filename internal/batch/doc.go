// Package batch owns Kafka's record batch, format version 2, as a view over bytes: framing, header fields, checksum,
// iteration, validation of what a producer sends, compression, and building batches for coordinators and tests.
//
// It never does input or output, knows no clock, and never keeps a reference to bytes it was given after a call returns.
// It does not know older formats (magic 0 and 1): Kafka 4 refuses them and so does Next.
//
// Everything is a function of its arguments and safe to call from any goroutine; a Builder and a Batch that is being
// patched belong to one goroutine at a time. Decoders and encoders come from pools.
//
// Invariants: no input makes it panic; memory used for a hostile batch is bounded by constants in limits.go and by the
// bytes present, never by a length that the input claims; offsets, timestamps and sequences of accepted records are what
// the bytes say. The layout is drawn in kafka.md 3.1, the rules of Check in 3.2.
//
// Read batch.go (fields) first, then check.go (what a leader accepts), walk.go (how records are read), codec.go, build.go.
package batch
