// Package api owns the table of Kafka's APIs as this broker answers them, one file per API that says at
// its head what it promises, and the one mapping from errors to Kafka's codes.
//
// It never keeps state between requests (sessions live on the connection, everything else in the
// packages below), never waits on the disk or the network itself, and never reads the metadata twice: a
// request sees one image from start to end.
//
// It runs on the goroutines of package server: Serve on the reader of a connection, the encoding of the
// answer on its writer. It starts none of its own.
//
// Invariants: what ApiVersions announces is what the table serves; every key of the protocol is a row or
// is in `absent` with a reason; a body is walked and its memory charged before it is decoded; every
// request ends in an answer, in silence because the client asked for it, or in a closed connection.
//
// Read table.go first, then dispatch.go, call.go and one API, for example api_versions.go.
package api
