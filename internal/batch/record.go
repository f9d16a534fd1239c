package batch

// Record is one record. From Each all slices alias a buffer and are valid only until the callback returns.
type Record struct {
	Offset    int64 // absolute, when it comes from Each; ignored by Builder.Add
	Timestamp int64 // milliseconds since 1970, -1 for none; the append time in a LogAppendTime batch
	Key       []byte
	Value     []byte // nil is null (a tombstone), empty is not
	Headers   []Header
}

// Header is one header of a record.
type Header struct {
	Key   []byte // UTF-8, never null
	Value []byte // nil is null
}

// RecordError names one bad record of a produced batch (KIP-467).
type RecordError struct {
	Index   int32 // position in the batch, from 0
	Message string
}
