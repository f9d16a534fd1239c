package config

// Why a key has no effect, or is refused. One text for many keys, so that the generated page and the error
// of a refused value never differ.
const (
	whyOne        = "there is one broker: replication comes later"
	whyTier       = "tiered storage is not built yet"
	whyMeta       = "Milena keeps metadata in its coordination store and has no controller quorum of its own"
	whyRoles      = "every broker of Milena is also able to coordinate"
	whyCordon     = "data directories cannot be cordoned yet"
	whyPlain      = "only PLAINTEXT is served: TLS and SASL come later"
	whySec        = "read with TLS and SASL, which are not served yet"
	whyAcl        = "access control is not built yet, and Milena loads no Java class"
	whyClass      = "Milena loads no Java class"
	whyStart      = "start-up has no such step"
	whyUnstable   = "Milena announces only what it serves"
	whyThreads    = "Go's scheduler decides about threads"
	whyQueue      = "there is no queue between socket and request: bytes are bounded instead (queued.max.request.bytes)"
	whyBacklog    = "the system's own limit is used"
	whyQuota      = "quotas are not built yet"
	whyCheckpoint = "start offsets are written with the recovery points (log.flush.offset.checkpoint.interval.ms)"
	whyCleaner    = "one cleaner works within log.cleaner.dedupe.buffer.size"
	whyPurgatory  = "waits end by themselves: there is nothing to sweep"
	whyCheck      = "checked with log.retention.check.interval.ms"
	whyBatchless  = "the coordinator appends without waiting"
	whyProtocols  = "the classic protocol is served; KIP-848 groups come later"
	whyLoad       = "offsets are read as they lie in the log"
	whyCodec      = "committed offsets are not compressed"
	whyShare      = "share groups are not served yet"
	whyStreams    = "streams groups are not served yet"
	whyTxn        = "transactions are not served yet"
	whyJmx        = "Milena's metrics are counters without windows"
	whyTelemetry  = "client telemetry is not served yet"
)
