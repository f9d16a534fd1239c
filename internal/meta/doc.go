// Package meta owns the nouns of the cluster (topic, partition, broker, resource), the immutable
// Image of all of them at one revision, the Delta between two images, and how each is spelled as a
// key and a value of the coordination store.
//
// It never reads or writes the store, never decides anything about the cluster, and never changes
// an Image once it was handed out.
//
// Anybody runs it: an Image is safe for concurrent readers; Apply is called by whoever follows the
// history, one call after the other. Nothing here starts a goroutine.
//
// Invariants: two images that applied the same history are equal; a Topic in an image has all its
// partitions; everything reached through an image is shared and read only; the cost of Apply
// follows the size of the change, not of the image.
//
// Read meta.go first, then image.go; the drawn format is docs/format/meta.md.
package meta
