package config

// Keys of the broker: logs.
var (
	_ = broker[[]string]("log.cleanup.policy", "delete", "Default of cleanup.policy: delete old segments, compact by key, both; empty keeps everything.", listOf("compact", "delete"), clusterWide)
	_ = broker[int64]("log.flush.interval.messages", "1", "Default of flush.messages: records after which a log is synced to disk. 1 syncs before every acknowledgement.", atLeast(1), kafkaHas("9223372036854775807"), clusterWide)
	_ = broker[int64]("log.flush.interval.ms", null, "Default of flush.ms: time after which a log is synced to disk.", clusterWide)
	_ = broker[int64]("log.flush.scheduler.interval.ms", "9223372036854775807", "Stands in for log.flush.interval.ms where that is not set.")
	_ = broker[int32]("log.flush.offset.checkpoint.interval.ms", "60000", "How often the recovery point of every log is written down.", atLeast(0), inert(whyCheckpoint))
	_ = broker[int32]("log.flush.start.offset.checkpoint.interval.ms", "60000", "How often the start offset of every log is written down.", atLeast(0), inert(whyCheckpoint))
	_ = broker[int32]("log.index.interval.bytes", "4096", "Default of index.interval.bytes: bytes between two entries of the offset index.", atLeast(0), clusterWide)
	_ = broker[int32]("log.index.size.max.bytes", "10485760", "Default of segment.index.bytes: largest index of a segment.", atLeast(4), clusterWide)
	_ = broker[int64]("log.initial.task.delay.ms", "30000", "Wait before the first background work on logs.", atLeast(0), internal, inert(whyStart))
	_ = broker[int64]("log.local.retention.bytes", "-2", "Default of local.retention.bytes.", atLeast(-2), clusterWide, inert(whyTier))
	_ = broker[int64]("log.local.retention.ms", "-2", "Default of local.retention.ms.", atLeast(-2), clusterWide, inert(whyTier))
	_ = broker[int64]("log.message.timestamp.after.max.ms", "3600000", "Default of message.timestamp.after.max.ms: how far in the future a record's time may be.", atLeast(0), clusterWide)
	_ = broker[int64]("log.message.timestamp.before.max.ms", "9223372036854775807", "Default of message.timestamp.before.max.ms: how far in the past a record's time may be.", atLeast(0), clusterWide)
	_ = broker[string]("log.message.timestamp.type", "CreateTime", "Default of message.timestamp.type: whose clock stamps records.", oneOf("CreateTime", "LogAppendTime"), clusterWide)
	_ = broker[bool]("log.preallocate", "false", "Default of preallocate: reserve the whole segment file on the disk when it is created.", clusterWide)
	_ = broker[int64]("log.retention.bytes", "-1", "Default of retention.bytes: size of a partition above which old segments are deleted; -1 is without limit.", clusterWide)
	_ = broker[int64]("log.retention.ms", null, "Default of retention.ms: age after which segments are deleted; -1 is without limit.", clusterWide)
	_ = broker[int32]("log.retention.minutes", null, "log.retention.ms in minutes.")
	_ = broker[int32]("log.retention.hours", "168", "log.retention.ms in hours.")
	// LogRetentionCheckIntervalMs is log.retention.check.interval.ms.
	LogRetentionCheckIntervalMs = broker[int64]("log.retention.check.interval.ms", "300000", "How often the logs are looked over for segments to delete.", atLeast(1))
	_                           = broker[int64]("log.roll.ms", null, "Default of segment.ms: age after which a new segment is begun.", clusterWide)
	_                           = broker[int32]("log.roll.hours", "168", "log.roll.ms in hours.", atLeast(1))
	_                           = broker[int64]("log.roll.jitter.ms", null, "Default of segment.jitter.ms: random time taken off log.roll.ms.", clusterWide)
	_                           = broker[int32]("log.roll.jitter.hours", "0", "log.roll.jitter.ms in hours.", atLeast(0))
	_                           = broker[int32]("log.segment.bytes", "1073741824", "Default of segment.bytes: largest segment file.", atLeast(1048576), clusterWide)
	_                           = broker[int64]("log.segment.delete.delay.ms", "60000", "Default of file.delete.delay.ms: wait before removed files are unlinked.", atLeast(0), clusterWide)
	_                           = broker[int64]("log.dir.failure.timeout.ms", "30000", "Wait for the controller to hear of a failed data directory.", atLeast(1), inert(whyOne))
	// NumRecoveryThreadsPerDataDir is num.recovery.threads.per.data.dir.
	NumRecoveryThreadsPerDataDir = broker[int32]("num.recovery.threads.per.data.dir", "2", "Logs of one data directory that are recovered at the same time.", atLeast(1), clusterWide, atStart)
	_                            = broker[int32]("message.max.bytes", "1048588", "Default of max.message.bytes: largest record batch, after compression.", atLeast(0), clusterWide)
	_                            = broker[string]("compression.type", "producer", "Default of the topic key: codec in which batches are stored; producer keeps the producer's.", oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"), clusterWide)
	_                            = broker[int32]("compression.gzip.level", "-1", "Default of the topic key: gzip level where the broker compresses.", check(gzipLevel{}), clusterWide)
	_                            = broker[int32]("compression.lz4.level", "9", "Default of the topic key: lz4 level where the broker compresses.", within(1, 17), clusterWide)
	_                            = broker[int32]("compression.zstd.level", "3", "Default of the topic key: zstd level where the broker compresses.", within(-131072, 22), clusterWide)
	_                            = broker[int32]("min.insync.replicas", "1", "Default of the topic key: replicas that must have a record before acks=all is answered.", atLeast(1), clusterWide)
	_                            = broker[bool]("unclean.leader.election.enable", "false", "Default of the topic key: a replica that is behind may become leader as the last resort.", clusterWide)
	// UncleanLeaderElectionIntervalMs is unclean.leader.election.interval.ms.
	UncleanLeaderElectionIntervalMs = broker[int64]("unclean.leader.election.interval.ms", "300000", "How often partitions without a leader are looked over.", atLeast(1), internal)
	// LogCleanerEnable is log.cleaner.enable.
	LogCleanerEnable = broker[bool]("log.cleaner.enable", "true", "Whether compaction runs.")
	_                = broker[int32]("log.cleaner.threads", "1", "Threads that compact.", atLeast(0), clusterWide, inert(whyCleaner))
	// LogCleanerDedupeBufferSize is log.cleaner.dedupe.buffer.size.
	LogCleanerDedupeBufferSize = broker[int64]("log.cleaner.dedupe.buffer.size", "134217728", "Memory for the keys of one compaction pass.", clusterWide, atStart)
	_                          = broker[int32]("log.cleaner.io.buffer.size", "524288", "Memory of the cleaner for reading and writing.", atLeast(0), clusterWide, inert(whyCleaner))
	_                          = broker[float64]("log.cleaner.io.buffer.load.factor", "0.9", "How full the table of keys may get.", clusterWide, inert(whyCleaner))
	// LogCleanerIoMaxBytesPerSecond is log.cleaner.io.max.bytes.per.second.
	LogCleanerIoMaxBytesPerSecond = broker[float64]("log.cleaner.io.max.bytes.per.second", "1.7976931348623157E308", "Bytes per second that compaction may read and write.", clusterWide, atStart)
	// LogCleanerBackoffMs is log.cleaner.backoff.ms.
	LogCleanerBackoffMs = broker[int64]("log.cleaner.backoff.ms", "15000", "Rest of the cleaner when nothing is dirty.", atLeast(0), clusterWide, atStart)
	_                   = broker[int64]("log.cleaner.delete.retention.ms", "86400000", "Default of delete.retention.ms: how long deletion markers survive compaction.", atLeast(0), clusterWide)
	_                   = broker[float64]("log.cleaner.min.cleanable.ratio", "0.5", "Default of min.cleanable.dirty.ratio: dirty share of a log that starts compaction.", within(0, 1), clusterWide)
	_                   = broker[int64]("log.cleaner.min.compaction.lag.ms", "0", "Default of min.compaction.lag.ms: age below which records stay uncompacted.", atLeast(0), clusterWide)
	_                   = broker[int64]("log.cleaner.max.compaction.lag.ms", "9223372036854775807", "Default of max.compaction.lag.ms: age at which compaction is forced.", atLeast(1), clusterWide)
)

// The replica selectors of KIP-392 that exist, by Kafka's class names.
const (
	LeaderSelector    = "org.apache.kafka.common.replica.LeaderSelector"
	RackAwareSelector = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
)

// Keys of the broker: replication.
var (
	// NumReplicaFetchers is num.replica.fetchers.
	NumReplicaFetchers = broker[int32]("num.replica.fetchers", "1", "Fetchers for each other broker.", atLeast(1), clusterWide)
	_                  = broker[int32]("num.replica.alter.log.dirs.threads", null, "Threads that move partitions between data directories.", inert(whyOne))
	// ReplicaFetchMinBytes is replica.fetch.min.bytes.
	ReplicaFetchMinBytes = broker[int32]("replica.fetch.min.bytes", "1", "Least bytes in an answer to a follower.")
	// ReplicaFetchMaxBytes is replica.fetch.max.bytes.
	ReplicaFetchMaxBytes = broker[int32]("replica.fetch.max.bytes", "1048576", "Most bytes of one partition in an answer to a follower.", atLeast(0))
	// ReplicaFetchResponseMaxBytes is replica.fetch.response.max.bytes.
	ReplicaFetchResponseMaxBytes = broker[int32]("replica.fetch.response.max.bytes", "10485760", "Most bytes in an answer to a follower.", atLeast(0))
	// ReplicaFetchWaitMaxMs is replica.fetch.wait.max.ms.
	ReplicaFetchWaitMaxMs = broker[int32]("replica.fetch.wait.max.ms", "500", "Longest wait for replica.fetch.min.bytes.")
	// ReplicaFetchBackoffMs is replica.fetch.backoff.ms.
	ReplicaFetchBackoffMs = broker[int32]("replica.fetch.backoff.ms", "1000", "Wait after an error while fetching.", atLeast(0))
	// ReplicaHighWatermarkCheckpointIntervalMs is replica.high.watermark.checkpoint.interval.ms.
	ReplicaHighWatermarkCheckpointIntervalMs = broker[int64]("replica.high.watermark.checkpoint.interval.ms", "5000", "How often the high watermark of every partition is written down.")
	// ReplicaLagTimeMaxMs is replica.lag.time.max.ms.
	ReplicaLagTimeMaxMs = broker[int64]("replica.lag.time.max.ms", "5000", "Time after which a follower that is behind leaves the in-sync set. Dead brokers leave it by their heartbeats; this is for one that lives and cannot be reached by the leader, or whose disk is too slow, and holds up acks=all until then.", kafkaHas("30000"))
	// ReplicaSelectorClass is replica.selector.class.
	ReplicaSelectorClass = broker[string]("replica.selector.class", null, "Which replica a client reads from: empty for the leader, org.apache.kafka.common.replica.RackAwareReplicaSelector for one in its rack.", oneOf("", LeaderSelector, RackAwareSelector))
	_                    = broker[int32]("replica.socket.receive.buffer.bytes", "65536", "Receive buffer between brokers.", inert(whyOne))
	_                    = broker[int32]("replica.socket.timeout.ms", "30000", "Socket timeout between brokers.", inert(whyOne))
	_                    = broker[bool]("follower.fetch.last.tiered.offset.enable", "false", "A new follower starts after what is in remote storage.", clusterWide, inert(whyTier))
	// AutoLeaderRebalanceEnable is auto.leader.rebalance.enable.
	AutoLeaderRebalanceEnable = broker[bool]("auto.leader.rebalance.enable", "true", "Give leadership back to preferred replicas.")
	// LeaderImbalanceCheckIntervalSeconds is leader.imbalance.check.interval.seconds.
	LeaderImbalanceCheckIntervalSeconds = broker[int64]("leader.imbalance.check.interval.seconds", "300", "How often leadership is compared with preference.", atLeast(1))
	// ControlledShutdownEnable is controlled.shutdown.enable.
	ControlledShutdownEnable = broker[bool]("controlled.shutdown.enable", "true", "Move leadership away before the broker stops.")
	// LeaderReplicationThrottledRate is leader.replication.throttled.rate.
	LeaderReplicationThrottledRate = broker[int64]("leader.replication.throttled.rate", "9223372036854775807", "Bytes per second that a leader sends to throttled replicas.", atLeast(0), clusterWide, internal)
	// FollowerReplicationThrottledRate is follower.replication.throttled.rate.
	FollowerReplicationThrottledRate = broker[int64]("follower.replication.throttled.rate", "9223372036854775807", "Bytes per second that a follower takes for throttled replicas.", atLeast(0), clusterWide, internal)
	// ReplicaAlterLogDirsIoMaxBytesPerSecond is replica.alter.log.dirs.io.max.bytes.per.second.
	ReplicaAlterLogDirsIoMaxBytesPerSecond = broker[int64]("replica.alter.log.dirs.io.max.bytes.per.second", "9223372036854775807", "Bytes per second of a move between data directories.", atLeast(0), clusterWide, internal)
)
