package batch

// Bounds on work and memory. They are constants because each protects the process, not a deployment.
const (
	// DefaultMaxInflated is the most decompressed bytes Check and Each read from one batch unless told otherwise. Check
	// streams, so this bounds time (about a quarter of a second), not memory.
	DefaultMaxInflated = 256 << 20
	// maxRebuild bounds the decompressed bytes of a batch that has to be rebuilt with another codec: a single record
	// must fit in memory there.
	maxRebuild = 64 << 20
	// streamBuffer is the working buffer for compressed records; records longer than this are skipped through, not held.
	streamBuffer = 64 << 10
	// maxRecordErrors bounds how many bad records one answer lists; a compressed batch may hold millions.
	maxRecordErrors = 1000
	// zstdSmallWindow is the window up to which pooled decoders serve; all levels up to 19 stay below it.
	zstdSmallWindow = 8 << 20
	// zstdLargeWindow is the largest window accepted, what zstd -22 uses and what the Java client accepts.
	zstdLargeWindow = 128 << 20
	// zstdLargeSlots is how many batches with a large window are decoded at once, process wide; each may hold maxRebuild bytes.
	zstdLargeSlots = 2
	// zstdMaxRatio: a zstd block of 4 bytes yields at most 128 KiB.
	zstdMaxRatio = 32 << 10
	// snappyMaxRatio: a snappy copy of 3 bytes yields at most 64, so no honest block expands further.
	snappyMaxRatio = 22
)

// Limits bounds Each.
type Limits struct {
	// MaxBytes is the most decompressed bytes to read; 0 means DefaultMaxInflated.
	MaxBytes int
}

func (l Limits) max() int {
	if l.MaxBytes <= 0 {
		return DefaultMaxInflated
	}
	return l.MaxBytes
}
